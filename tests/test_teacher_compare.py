"""`tutelage teacher compare`: two FAKE teachers, or one and recorded labels, on the same sample."""

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import FakeChatServer
from command import tutelage
from rich.console import Console
from test_extra import config_of
from test_teacher_check import config_with

from agents.compare_sample import choose_sample
from agents.measure_views import print_comparison
from agents.nodes import catalogue, diagnose, evaluate, label
from agents.prepare import prepare
from agents.progress import ProgressPrinter
from agents.session import create_run, measuring_folder, open_loop
from agents.teacher_compare import compare_teachers
from curriculum.config import Config, load_config
from curriculum.errors import BudgetReached, RunDirError, UserError
from curriculum.records import SkillLabel
from curriculum.rundir import read_records
from curriculum.teacher_measures import TeacherComparison

DATA_SKILLS = {"catalogue": {"source": "data"}}


def run_to_the_diagnosis(path: Path, name: str) -> Path:
    """The nodes of round 0 through the diagnosis, with the fake student."""
    config = load_config(path)
    with open_loop(create_run(config, path, name), config, ProgressPrinter(StringIO())) as loop:
        state = prepare(loop, {})
        for node in (catalogue, label, evaluate, diagnose):
            state |= node(loop, state)
        return loop.run.path


def compare(configs: list[Config], items: int = 60, **where: Path | None) -> tuple[TeacherComparison, str]:
    said = StringIO()
    progress = ProgressPrinter(said)
    sample = choose_sample(configs[0], len(configs), where.get("run"), where.get("labels"), items, progress)
    made = compare_teachers(configs, sample, measuring_folder(configs[0], "compare"), progress)
    return made, said.getvalue()


def says(skills: Callable[[str], list[str]], difficulty: int = 2) -> Callable[[str], str | None]:
    """A teacher who names these skills of a question's number, for labels and for diagnoses."""

    def reply(prompt: str) -> str | None:
        blocks = re.findall(r"<(\w+) [0-9a-f]{8}>\n(.*?)\n</", prompt, re.DOTALL)
        if "which skills a question needs" in prompt:
            asked = [(id_, text) for id_, text in blocks if re.fullmatch(r"q\d+", id_)]
            rows = [{"id": i, "reason": "r", "skills": skills(q), "difficulty": difficulty} for i, q in asked]
            return json.dumps({"labels": rows})
        if "which skills a student is missing" in prompt:
            question = dict(blocks)["question"]
            return json.dumps({"reason": "r", "error_kind": "e", "missing_skills": skills(question)})
        return None

    return reply


def number(question: str) -> int:
    return int(re.findall(r"\d+", question)[0])


def test_two_teachers_on_a_runs_failures(tmp_path: Path) -> None:
    with FakeChatServer() as one, FakeChatServer() as two:
        one.script = says(lambda q: [f"s{number(q) % 3}"])
        two.script = says(lambda q: ["s0"] if number(q) % 3 else ["s0", "s1"], difficulty=4)
        run = run_to_the_diagnosis(config_with(tmp_path, one, **DATA_SKILLS, model="dear"), "run-a")
        first = load_config(config_with(tmp_path, one, **DATA_SKILLS, model="dear"))
        other = load_config(config_with(tmp_path, two, **DATA_SKILLS, model="cheap"))
        bought = len(one.seen)
        made, said = compare([first, other], run=run)
        assert len(one.seen) == bought, "what the run's own teacher said is taken over"
        asked = len(two.seen)
        failed = made.labellers[1].diagnosed
        assert asked == -(-9 // 4) + failed and 0 < failed <= 9 == made.items
        again, _ = compare([first, other], run=run)
        assert len(two.seen) == asked and again.pairs == made.pairs and again.plan == made.plan
    assert [(x.name, x.taken_over, x.labelled) for x in made.labellers] == [("dear", True, 9), ("cheap", False, 9)]
    assert sum(r.requests for r in made.labellers[1].spend) == asked and not made.labellers[0].spend
    assert f"at most {2 * asked} requests" in said and "its replies are the run's" in said
    (pair,) = made.pairs
    labels = {r.example_id: r.skills for r in read_records(run / "label" / "labels.jsonl", SkillLabel)}
    by_skill = {s.skill: s for s in pair.labels.skills}
    assert by_skill["s0"].both + by_skill["s0"].second_only == 9 and by_skill["s0"].first_only == 0
    assert by_skill["s2"].both == 0 and by_skill["s1"].first_only <= sum("s1" in of for of in labels.values())
    assert pair.labels.difficulty is not None and pair.labels.difficulty.value is None, "both are constant"
    assert pair.labels.same_difficulty is not None and pair.labels.same_difficulty.correct == 0
    assert pair.diagnoses is not None and pair.diagnoses.items == failed
    planned = {p.skill: p for p in made.plan}
    assert sum(p.shares[0] for p in made.plan) == pytest.approx(1) == sum(p.shares[1] for p in made.plan)
    assert planned["s0"].missing[1] == failed and planned["s2"].missing[1] == 0
    assert made.moved == pytest.approx(sum(abs(p.shares[0] - p.shares[1]) for p in made.plan) / 2) and made.moved > 0.2
    assert not made.notes
    assert json.loads((tmp_path / "runs" / "compare" / "compare.json").read_text()) == again.model_dump(mode="json")


@pytest.mark.parametrize(
    ("keys", "taken_over"),
    [({}, True), ({"concurrency": 2}, True), ({"temperature": 0.5}, False), ({"rows_per_call": 2}, False)],
)
def test_a_runs_replies_are_taken_over_only_by_who_was_asked_like_it(
    keys: dict[str, Any], taken_over: bool, tmp_path: Path
) -> None:
    with FakeChatServer() as server:
        run = run_to_the_diagnosis(config_with(tmp_path, server, **DATA_SKILLS), "run-a")
        configs = [load_config(config_with(tmp_path, server, **DATA_SKILLS, **of)) for of in (keys, {"model": "twin"})]
        made, _ = compare(configs, run=run)
    assert [x.taken_over for x in made.labellers] == [taken_over, False]


def test_the_same_words_lead_to_the_same_plan(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        run = run_to_the_diagnosis(config_with(tmp_path, server, **DATA_SKILLS), "run-a")
        configs = [load_config(config_with(tmp_path, server, **DATA_SKILLS, model=m)) for m in ("fake", "twin")]
        made, _ = compare(configs, run=run)
    (pair,) = made.pairs
    assert pair.labels.jaccard.value == 1 and pair.diagnoses is not None and pair.diagnoses.jaccard.value == 1
    assert made.moved == 0 and all(p.shares[0] == p.shares[1] for p in made.plan)


def test_without_a_run_labels_are_compared_and_said_is_what_is_needed(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        configs = [load_config(config_with(tmp_path, server, model=m)) for m in ("a", "b")]
        made, said = compare(configs, items=12)
        # The first names the skills; what that costs at most is announced before.
        announced = int(said.split("a: at most ")[1].split(" ")[0])
        assert sum(r.requests for r in made.labellers[0].spend) <= announced
    assert made.plan == () and made.moved is None and "--run RUN" in made.notes[0]
    (pair,) = made.pairs
    assert pair.labels.items == 12 and pair.labels.jaccard.value == 1 and pair.diagnoses is None


def test_a_teacher_is_scored_by_recorded_labels(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.script = says(lambda q: ["odd" if number(q) % 2 else "even"])
        path = config_with(tmp_path, server, model="a")
        questions = [f"What is {n} plus {n}?" for n in range(10, 80)]
        labels = {q: ["odd" if number(q) % 2 and number(q) % 7 else "even"] for q in questions}
        file = tmp_path / "labels.json"
        file.write_text(json.dumps({"question2skill": labels}))
        made, _ = compare([load_config(path)], labels=file, items=30)
    (pair,) = made.pairs
    assert (pair.first, pair.second, pair.labels.items) == ("recorded", "a", 30)
    even, odd = pair.labels.skills
    assert odd.first_only == 0 and odd.second_only == even.first_only > 0
    assert even.kappa == odd.kappa and even.kappa.value is not None and 0 < even.kappa.value < 1
    assert pair.labels.difficulty is None, "the file says nothing of it"
    with pytest.raises(UserError, match="got none of them"):
        file.write_text(json.dumps({"question2skill": {"another": ["x"]}}))
        compare([load_config(path)], labels=file)


def test_the_data_s_own_labels_can_be_one_of_the_two(tmp_path: Path) -> None:
    offline = config_of(tmp_path, [], name="offline")
    with FakeChatServer() as server:
        server.script = says(lambda q: [f"s{number(q) % 3}"])
        run = run_to_the_diagnosis(offline, "run-a")
        made, _ = compare([load_config(offline), load_config(config_with(tmp_path, server))], run=run)
        assert [x.name for x in made.labellers] == ["offline", "fake"] and not made.labellers[0].spend
    assert made.pairs[0].labels.jaccard.value == 1 and made.pairs[0].diagnoses is not None


def test_a_teacher_that_fails_is_a_finding_not_an_end(tmp_path: Path) -> None:
    offline = config_of(tmp_path, [], name="offline")
    run = run_to_the_diagnosis(offline, "run-a")
    with FakeChatServer(("unknown_skill",), share=0.5) as server:
        made, _ = compare([load_config(offline), load_config(config_with(tmp_path, server))], run=run)
    failed = made.labellers[1].failed
    assert sum(failed.values()) > 0 and all(kind.endswith("unknown_skill") for kind in failed)
    assert made.labellers[1].labelled + failed.get("label: unknown_skill", 0) == 9


def test_each_teacher_has_its_own_budget_and_nothing_is_lost_at_it(tmp_path: Path) -> None:
    offline = config_of(tmp_path, [], name="offline")
    run = run_to_the_diagnosis(offline, "run-a")
    with FakeChatServer() as server:
        path = config_with(tmp_path, server, concurrency=1)
        with pytest.raises(BudgetReached):
            compare([load_config(offline), load_config(path, ["teacher.budget.requests=2"])], run=run)
        assert len(server.seen) == 2
        compare([load_config(offline), load_config(path)], run=run)
        bodies = [s.body for s in server.seen]
    assert len(set(bodies)) == len(bodies)


def test_a_running_run_is_not_touched(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        run = run_to_the_diagnosis(config_with(tmp_path, server, **DATA_SKILLS), "run-a")
        calls = run / "teacher" / "calls.jsonl"
        with calls.open("a") as file:
            file.write('{"torn')  # by a process that is still writing
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        configs = [load_config(config_with(tmp_path, server, **DATA_SKILLS, model=m)) for m in ("fake", "twin")]
        compare(configs, run=run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_what_a_user_can_mend(tmp_path: Path) -> None:
    config = load_config(config_of(tmp_path, []))
    with pytest.raises(UserError, match="got nothing"):
        compare([config])
    with pytest.raises(UserError, match="got both"):
        compare([config], run=tmp_path, labels=tmp_path)
    with pytest.raises(UserError, match="another teacher"):
        compare([config, config])
    with pytest.raises(RunDirError, match="expected a run's folder"):
        compare([config, config], run=tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunDirError, match="has the base's probe answers"):
        compare([config, config], run=tmp_path)


def test_what_teachers_are_called_is_shown_as_text(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        run = run_to_the_diagnosis(config_of(tmp_path, [], name="offline"), "run-a")
        path = config_with(tmp_path, server, model="[red]\u202ex")
        made, _ = compare([load_config(tmp_path / "offline.yaml"), load_config(path)], run=run)
    console = Console(file=StringIO(), width=200, highlight=False)
    print_comparison(made, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]" in text and "\u202e" not in text
    for expected in ("kappa", "Jaccard", "Spearman", "missing skills", "The first round's plan", "would go to other"):
        assert expected in text


@pytest.mark.real
def test_the_command_prints_a_last_line_and_its_exit_codes(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        run = run_to_the_diagnosis(config_with(tmp_path, server, **DATA_SKILLS), "run-a")
        path: Any = config_with(tmp_path, server, **DATA_SKILLS)
        command = ("teacher", "compare", path, "--run", run, "--json")
        done = tutelage(*command, "--with", path, "--with-set", "teacher.model=other")
        assert done.code == 0, done.err
        assert done.last["status"] == "ok" and len(done.last["labellers"]) == 2 and done.last["moved"] == 0
        assert yaml.safe_load(path.read_text())["teacher"]["model"] == "fake"
        done = tutelage(*command)
        assert done.code == 2 and "--with OTHER" in done.err and "Traceback" not in done.err
