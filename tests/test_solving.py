"""Worked solutions of hard pool questions: checked, bought once, counted; a FAKE server plays the teacher."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import FakeChatServer
from samples import training_row
from test_methods import command, read_round, worked_config
from test_teacher_cost import NOTHING, examples, tree
from test_writing import Teacher

from agents.loop import FAILED
from agents.solving import ATTEMPTS
from agents.targets import CHOICES, SOLVED
from agents.teacher_cost import teacher_forecast
from curriculum.complexity import solving_report
from curriculum.config import Config, load_config
from curriculum.errors import ConfigError
from curriculum.grading import Grader
from curriculum.method_records import SolvedExample, TargetChoice
from curriculum.records import Example
from curriculum.rundir import read_records

TOKENS = 50 + 20
"""What the fake says that each reply took."""


@pytest.fixture
def teacher(tmp_path: Path) -> Iterator[Teacher]:
    with FakeChatServer() as server, Grader() as grader:
        made = Teacher(server, tmp_path, grader)
        yield made
        made.llm.close()


def question(text: str, gold: str) -> Example:
    return Example.make(question=text, gold=gold, grader="numeric", source="test")


def test_a_solution_is_asked_for_until_its_answer_is_right_and_no_longer(teacher: Teacher) -> None:
    hard = [question("How many are two and three?", "5"), question("How many are one and one?", "2")]
    teacher.answers = ["6", "2", "5.0"]
    made = teacher.llm.solve(hard, 1)
    assert made.failures == []
    first, second = ({one.example_id: one for one in made.examples}[e.id] for e in hard)
    assert (first.attempts, first.answers, first.solution, first.tokens) == (2, ("6", "5.0"), "Steps.", 2 * TOKENS)
    assert (second.attempts, second.answers, second.solution, second.tokens) == (1, ("2",), "Steps.", TOKENS)
    assert (first.refused, second.refused) == (("wrong: '6' was read",), ())
    assert [one.example_id for one in made.examples] == sorted(e.id for e in hard)
    assert len(teacher.shown) == 3 and not any(re.search(r"\b5\b", shown) for shown in teacher.shown), "blind"
    assert teacher.llm.solve(hard, 2).examples == made.examples, "whatever the round"
    assert len(teacher.shown) == 3, "what was bought is not bought again"


def test_what_is_never_right_has_no_solution_and_what_is_no_reply_is_a_failure(teacher: Teacher) -> None:
    teacher.answers = ["6"]
    (one,) = teacher.llm.solve([question("How many are two and three?", "5")], 1).examples
    assert (one.attempts, one.answers, one.solution) == (ATTEMPTS, ("6",) * ATTEMPTS, None)
    assert one.refused == ("wrong: '6' was read",) * ATTEMPTS
    teacher.answers = [" "]
    made = teacher.llm.solve([question("How many are two and four?", "6")], 1)
    assert made.examples[0].solution is None and made.examples[0].answers == ()
    assert made.examples[0].refused == ("no usable reply: schema",) * ATTEMPTS
    assert made.examples[0].tokens == 2 * ATTEMPTS * TOKENS, "each with its repair turn"
    assert [f.item_id for f in made.failures] == [f"{made.examples[0].example_id}-{at}" for at in range(ATTEMPTS)]


def test_what_all_would_have_taken_is_the_mean_of_those_asked() -> None:
    def choice(id_: str, form: Any, source: Any, answer: int, solution: int) -> TargetChoice:
        part: Any = "hard" if form == "solution" or id_ == "c" else "easy"
        return TargetChoice(
            example_id=id_, entropy=1.0, part=part, form=form, reason="r", solution_from=source,
            answer_tokens=answer, solution_tokens=solution,
        )  # fmt: skip

    def solved(id_: str, solution: str | None, tokens: int) -> SolvedExample:
        return SolvedExample(example_id=id_, attempts=1, answers=("1",), solution=solution, tokens=tokens)

    choices = [
        choice("a", "solution", "teacher", 3, 20), choice("b", "answer", None, 3, 3),
        choice("c", "answer", None, 3, 3), choice("d", "answer", "example", 3, 11),
    ]  # fmt: skip
    rows = [training_row(id=str(at), example_id=id_) for at, id_ in enumerate("abbcd")]
    made = solving_report([solved("a", "s", 100), solved("c", None, 300)], choices, rows)
    assert (made.asked, made.solved, made.tokens, made.without) == (2, 1, 400, 3)
    assert made.all_tokens == 600, "200 each, for a, b and c"
    assert made.all_response_tokens == 20 + 20 + 20 + 20 + 11
    assert solving_report([solved("c", None, 300)], choices[1:], rows[1:]).all_response_tokens is None


def teacher_config(folder: Path, server: FakeChatServer, **changes: Any) -> Path:
    path = worked_config(folder, **changes)
    tree_ = yaml.safe_load(path.read_text())
    tree_["teacher"] = {
        "kind": "llm", "model": "fake-teacher", "base_url": server.url, "backoff_seconds": 0.01,
        "labels": "data", "catalogue": {"source": "data"}, "max_failed_share": 0.5,
    }  # fmt: skip
    tree_["plan"] |= {"targets": "complexity", "complexity": {"solve": True}}
    path.write_text(yaml.safe_dump(tree_))
    return path


def adds(prompt: str) -> str | None:
    """Adds the pens, hats and cups; of 45 cups never rightly, of 44 in words that are no JSON."""
    if "Solve the question" not in prompt:
        return None
    numbers = [int(n) for n in re.findall(r"(\d+) (?:pens|hats|cups)", prompt)]
    if numbers[2] == 44:
        return "I would rather not say."
    return json.dumps({"solution": f"The sum of {numbers}.", "answer": str(sum(numbers) + (numbers[2] == 45))})


def test_hard_questions_without_a_solution_are_solved_and_only_right_solutions_are_taught(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.script = adds
        config = teacher_config(tmp_path, server, solutions=[])
        code, said = command("run", config, "--name", "run")
        assert code == 0, said
        asked = Counter(seen.body for seen in server.seen if "Solve the question" in seen.body)
        rows, report = read_round(tmp_path / "run", 1)
        built = tmp_path / "run" / "round_01" / "build"
        solved = {s.example_id: s for s in read_records(built / SOLVED, SolvedExample)}
        choices = {c.example_id: c for c in read_records(built / CHOICES, TargetChoice)}
        assert solved.keys() == {id_ for id_, c in choices.items() if c.part == "hard"}
        assert 0 < sum(s.solution is not None for s in solved.values()) < len(solved)
        for row in rows:
            worked = row.example_id in solved and solved[row.example_id].solution is not None
            assert ("The sum of" in row.target) == worked == (choices[row.example_id].form == "solution")
            assert not worked or not re.search("4[45] cups", row.question)
        failures = [json.loads(line) for line in (built / FAILED).read_text().splitlines()]
        assert failures and {f["role"] for f in failures} == {"solve"}
        assert report.methods is not None and report.methods.targets is not None
        of = report.methods.targets.solving
        assert of is not None and (of.asked, of.without) == (len(solved), len(choices))
        assert of.tokens == sum(s.tokens for s in solved.values()) == TOKENS * asked.total()
        assert of.all_tokens == round(of.tokens / len(solved) * len(choices))
        page = re.sub(r"\s+", " ", (tmp_path / "run" / "report.md").read_text())
        assert f"A teacher solved {of.solved} of {of.asked} hard questions" in page and "75.0 % saved" in page
        for name, words in (("bundle", ("run", "--to", "b.zip")), ("verify", ("b.zip",))):
            args = [str(tmp_path / word) if not word.startswith("--") else word for word in words]
            code, said = command(name, *args)
            assert code == 0, said


def test_solutions_of_the_data_that_are_right_are_not_asked_for(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.script = adds
        code, said = command("run", teacher_config(tmp_path, server), "--name", "run")
        assert code == 0, said
    built = tmp_path / "run" / "round_01" / "build"
    solved = {s.example_id for s in read_records(built / SOLVED, SolvedExample)}
    hard = {c.example_id: c.solution_from for c in read_records(built / CHOICES, TargetChoice) if c.part == "hard"}
    assert solved < hard.keys() and {hard[id_] for id_ in hard if id_ not in solved} == {"example"}


def test_a_teacher_that_solves_none_stops_the_round_and_says_why(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        reply = json.dumps({"solution": "Long.", "answer": "no idea"})
        server.script = lambda prompt: reply if "Solve the question" in prompt else None
        code, said = command("run", teacher_config(tmp_path, server, solutions=[]), "--name", "run")
    built = tmp_path / "run" / "round_01" / "build"
    solved = read_records(built / SOLVED, SolvedExample)
    assert code == 2 and f"the teacher solved none of {len(solved)} hard ones (why: {SOLVED})" in " ".join(said.split())
    assert "plan.complexity.solve" not in said, "it is set"
    assert {one.refused for one in solved} == {("unparsed: nothing was read",) * ATTEMPTS}


def test_without_an_llm_nobody_can_solve(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plan\.complexity\.solve.*asks a model, but the offline teacher"):
        load_config(worked_config(tmp_path), ["plan.targets=complexity", "plan.complexity.solve=true"])


@pytest.mark.parametrize(
    ("control", "solutions", "wanted"),
    # Cheap: 20 rows are at least 5 examples, one of them hard. Dear: 3 rounds of 5, three attempts, each repaired.
    [("none", False, (1, 3 * 5 * 3 * 2)), ("every_round", False, (1, 6 * 5 * 3 * 2)), ("none", True, (0, 90))],
)
def test_the_forecast_counts_solutions_of_hard_questions(
    control: str, solutions: bool, wanted: tuple[int, int]
) -> None:
    tree_ = tree(3, 20, 0.0)
    tree_["plan"] |= {"targets": "complexity", "complexity": {"solve": True}}
    data = examples(pool=40, probe=6, gate=3, final=2)
    if solutions:
        data = [e.model_copy(update={"solutions": ("s",)}) for e in data]
    config = Config.model_validate(tree_ | {"control": control})
    roles = {role.role: role for role in teacher_forecast(config, data, NOTHING).roles}
    assert roles["solve"].requests == wanted
