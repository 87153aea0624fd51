"""The layers on a round's training through the whole loop and the command line, with the fake student."""

import io
import json
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import yaml
from command import FAKE, TASKS, write_config
from test_bench import CONFIG, bench
from test_extra import config_of, loop_of
from typer.testing import CliRunner

from agents.cli import app
from agents.demonstrations import CHOSEN, HOLDOUT, WEIGHTS, read_shots
from agents.graph import run_plain
from agents.progress import ProgressPrinter
from agents.session import open_loop, open_run
from agents.targets import CHOICES
from agents.teach import write_rows
from agents.teacher import WriteOrder
from curriculum.bench_records import BenchReport
from curriculum.config import load_config
from curriculum.errors import ConfigError
from curriculum.method_records import Demonstration, RowDemonstrations, RowWeight, TargetChoice
from curriculum.report import RoundReport, Timings
from curriculum.report_methods import methods_words
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_record, read_records, write_records
from curriculum.strategies import parse_strategies
from student.fakes import FakeStudent
from student.interface import Shots


def command(*args: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, args)))
    return done.exit_code, done.stdout + done.stderr


def finish(config: Path, *settings: str) -> Path:
    code, said = command("run", config, "--name", "run", *(word for s in settings for word in ("--set", s)))
    assert code == 0, said
    return config.parent / "run"


def worked_config(folder: Path, **changes: Any) -> Path:
    """Additions as a file with solutions, one in ten of which ends in a wrong number."""
    rows = [
        {"q": f"Tom has {a} pens and {b} hats and {c} cups {'so ' * (a % 7)}", "a": a + b + c, "s": f"{a} + {b} + {c}"}
        for a in range(2, 12)
        for b in range(20, 24)
        for c in range(40, 46)
    ]
    for at, row in enumerate(rows):
        row |= {"s": f"{row['s']} = {row['a'] + (at % 10 == 0)}", "skill": ["add", "sum"][at % 2]}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"question": "q", "answer": "a", "solutions": "s", "skills": "skill"} | changes
    splits = {"probe": 40, "gate": 60, "final": 40}
    tree = yaml.safe_load(FAKE.format(engine="fake", base="fake", tasks=TASKS.strip()))
    path = folder / "worked.yaml"
    data = {"kind": "file", "path": str(folder / "rows.jsonl"), "columns": columns, "splits": splits}
    own = {"data": data, "runs_dir": str(folder), "rounds": 1}
    path.write_text(yaml.safe_dump(tree | own | {"plan": tree["plan"] | {"write_share": 0.0}}))
    return path


def read_round(run: Path, round_: int) -> tuple[list[TrainingRow], RoundReport]:
    folder = run / f"round_{round_:02d}"
    report = read_record(folder / "report" / "report.json", RoundReport)
    return read_records(folder / "build" / "training_set.jsonl", TrainingRow), report


# In-context approximation


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weighed")
    return finish(
        write_config(folder), "training.weights=ica", "training.ica.subtract_random=true", "control=last_round"
    )


@pytest.mark.parametrize("round_", [1, 2])
def test_the_holdout_is_of_the_pool_and_no_row_of_any_training(weighed: Path, round_: int) -> None:
    folder = weighed / f"round_{round_:02d}"
    rows, _ = read_round(weighed, round_)
    shown = read_records(folder / "build" / HOLDOUT, Demonstration)
    with open_loop(*open_run(weighed), ProgressPrinter(io.StringIO())) as loop:
        assert {d.example_id for d in shown} == loop.holdout
        assert {loop.examples[d.example_id].split for d in shown} == {"pool"}
    assert len(shown) > 3 and not {d.question for d in shown} & {row.question for row in rows}
    chosen = read_records(folder / "build" / CHOSEN, RowDemonstrations)
    assert [c.row_id for c in chosen] == [row.id for row in rows]
    assert all(len(set(c.nearest)) == len(set(c.random)) == 3 for c in chosen)


def test_a_writing_teacher_sees_nothing_of_the_holdout(weighed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_loop(*open_run(weighed), ProgressPrinter(io.StringIO())) as loop:
        orders: list[WriteOrder] = []
        write = type(loop.teacher).write

        def listening(self: Any, order: WriteOrder, *more: Any) -> Any:
            orders.append(order)
            return write(self, order, *more)

        monkeypatch.setattr(type(loop.teacher), "write", listening)
        write_rows(loop, loop.plan(1))
        assert orders and all(order.held_out >= loop.holdout for order in orders)
        assert any(order.seeds for order in orders)
        assert not loop.holdout & {seed.id for order in orders for seed in order.seeds}


def test_every_row_of_a_round_and_of_its_control_has_its_score_and_weight(weighed: Path) -> None:
    for build, train in (("build", "train"), ("control_build", "control_train")):
        folder = weighed / "round_02"
        rows = {r.id: r for r in read_records(folder / build / "training_set.jsonl", TrainingRow)}
        made = read_records(folder / train / WEIGHTS, RowWeight)
        assert {w.row_id for w in made} == rows.keys()
        assert all(w.example_id == rows[w.row_id].example_id for w in made)
        assert fmean(w.weight for w in made) == pytest.approx(1)
        for w in made:
            assert w.random is not None and w.score == pytest.approx((w.alone - w.shown) - (w.alone - w.random))


def test_the_report_says_what_weighed_the_rows_and_what_that_took(weighed: Path) -> None:
    rows, report = read_round(weighed, 2)
    assert report.methods is not None and report.methods.weights is not None
    assert report.methods.weights.rows == len(rows) and report.methods.targets is None
    for page in ("report.md", "report.html"):
        assert "Rows were weighed by in-context approximation" in (weighed / page).read_text()
    times = [json.loads((weighed / "round_02" / s / "timing.json").read_text()) for s in ("build", "train")]
    assert all(t["scoring_seconds"] >= 0 for t in times)
    code, said = command("report", weighed, "--round", "2")
    assert code == 0 and "weighed by in-context approximation" in " ".join(said.split())


def test_too_small_a_holdout_stops_the_run_with_what_to_do(tmp_path: Path) -> None:
    settings = ("training.weights=ica", "training.ica.neighbours=32", "training.ica.holdout_share=0.01")
    code, said = command("run", write_config(tmp_path), "--name", "run", *(w for s in settings for w in ("--set", s)))
    assert code == 2 and "training.ica.holdout_share" in said and "Traceback" not in said


def test_a_fork_may_begin_to_weigh_rows_that_were_taught_before(tmp_path: Path) -> None:
    run = finish(write_config(tmp_path))
    settings = ("--set", "training.weights=ica", "--set", "training.ica.holdout_share=0.5")
    code, said = command("fork", run, "--round", "1", "--name", "other", *settings)
    assert code == 0, said
    rows, report = read_round(tmp_path / "other", 2)
    shown = read_records(tmp_path / "other" / "round_02" / "build" / HOLDOUT, Demonstration)
    assert {row.origin for row in rows} >= {"replay"} and not {d.example_id for d in shown} & {
        r.example_id for r in rows
    }
    assert report.methods is not None
    with open_loop(*open_run(tmp_path / "other"), ProgressPrinter(io.StringIO())) as loop:
        assert loop.holdout & {r.example_id for r in rows}, "some rows were taught before there was a holdout"


def test_a_training_is_given_the_texts_of_what_was_chosen(tmp_path: Path) -> None:
    assert read_shots(tmp_path, True) is None
    shown = [Demonstration(example_id=i, question=f"Q {i}", answer=f"A {i}") for i in "abc"]
    write_records(tmp_path / HOLDOUT, shown)
    write_records(tmp_path / CHOSEN, [RowDemonstrations(row_id="r", nearest=("b", "a"), random=("c", "b"))])
    nearest, by_chance = [("Q b", "A b"), ("Q a", "A a")], [("Q c", "A c"), ("Q b", "A b")]
    assert read_shots(tmp_path, True) == {"r": Shots(nearest, by_chance)}
    assert read_shots(tmp_path, False) == {"r": Shots(nearest, None)}


def test_earlier_chat_turns_go_with_their_rows_and_never_into_demonstrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lines = config_of(tmp_path, []), []
    for at, line in enumerate((tmp_path / "data.jsonl").read_text().splitlines()):
        turns = [{"role": "user", "content": f"Tell {at}"}, {"role": "assistant", "content": f"Told {at}"}]
        row = json.loads(line)
        turns = turns * (at % 2) + [{"role": "user", "content": row["question"]}]
        turns.append({"role": "assistant", "content": row["gold"]})
        lines.append(json.dumps({"turns": turns, "skill": row["skills"][0]}))
    (tmp_path / "data.jsonl").write_text("\n".join(lines) + "\n")
    pair = {"question": "Who?", "wanted": "Nobody", "unwanted": "The robots"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair))
    tree = yaml.safe_load(path.read_text()) | {"training": {"weights": "ica", "ica": {"holdout_share": 0.3}}}
    tree["data"] |= {"format": None, "columns": {"messages": "turns", "skills": "skill"}, "grader": "exact"}
    tree["plan"]["unwanted"] = {"pairs": str(tmp_path / "pairs.jsonl")}
    path.write_text(yaml.safe_dump(tree))
    embedded: dict[str, list[str]] = {}
    vectors: dict[str, Any] = {}
    scored: dict[str, list[str]] = {}
    embed, influence = FakeStudent.embed, FakeStudent.influence

    def embedding(self: FakeStudent, prompts: Any, *more: Any) -> Any:
        embedded.update((p.example_id, [m.content for m in p.messages]) for p in prompts)
        made = embed(self, prompts, *more)
        vectors.update((p.example_id, vector / np.linalg.norm(vector)) for p, vector in zip(prompts, made, strict=True))
        return made

    def scoring(self: FakeStudent, candidates: Any, *more: Any) -> Any:
        scored.update((p.example_id, [m.content for m in p.messages]) for p, _ in candidates)
        return influence(self, candidates, *more)

    monkeypatch.setattr(FakeStudent, "embed", embedding)
    monkeypatch.setattr(FakeStudent, "influence", scoring)
    with loop_of(path) as loop:
        run_plain(loop)
        rows = loop.new_rows(1)
        shown = read_records(loop.run.path / "round_01" / "build" / HOLDOUT, Demonstration)
        chosen = read_records(loop.run.path / "round_01" / "build" / CHOSEN, RowDemonstrations)
        histories = {loop.examples[id_].history for id_ in loop.holdout}
        assert shown and len(histories) > 1 and not any(loop.examples[d.example_id].history for d in shown)
    assert {bool(row.history) for row in rows} == {True, False}
    for row in rows:
        turns = [*(m.content for m in row.history), row.question]
        assert embedded[row.id][-len(turns) :] == scored[row.id][-len(turns) :] == turns
    for of_row in chosen:
        near = [float(vectors[of_row.row_id] @ vectors[id_]) for id_ in of_row.nearest]
        every = sorted((float(vectors[of_row.row_id] @ vectors[d.example_id]) for d in shown), reverse=True)
        assert near == pytest.approx(every[:3], abs=1e-5)


# The form of targets


@pytest.mark.parametrize("rule", ["complexity", "complexity_random"])
def test_the_hard_part_alone_is_taught_worked_solutions_that_are_right(tmp_path: Path, rule: str) -> None:
    run = finish(worked_config(tmp_path), f"plan.targets={rule}", "control=last_round")
    rows, report = read_round(run, 1)
    for build in ("build", "control_build"):
        folder = run / "round_01" / build
        chosen = {c.example_id: c for c in read_records(folder / CHOICES, TargetChoice)}
        made = read_records(folder / "training_set.jsonl", TrainingRow)
        assert {row.example_id for row in made} == chosen.keys()
        for row in made:
            lines = row.target.split("\n")
            assert len(lines) == (2 if chosen[row.example_id].form == "solution" else 1)
            if len(lines) == 2:
                assert chosen[row.example_id].part == "hard"
                assert lines[0].rpartition("= ")[2] == lines[1].removeprefix("Answer: "), "checked before use"
        parts = Counter(c.part for c in chosen.values())
        assert parts["hard"] == parts["easy"] == round(len(chosen) / 4)
        entropies = {part: [c.entropy for c in chosen.values() if c.part == part] for part in parts}
        if rule == "complexity":
            assert (
                max(entropies["easy"]) <= min(entropies["middle"]) <= max(entropies["middle"]) <= min(entropies["hard"])
            )  # type: ignore[type-var]
        else:
            assert {e for of in entropies.values() for e in of} == {None}
    assert report.methods is not None and report.methods.targets is not None
    told = report.methods.targets
    assert sum(told.rows.values()) == len(rows) and told.tokens < told.all_solutions
    assert "Response tokens an epoch" in (run / "report.md").read_text()


def test_an_adapter_that_is_taught_this_way_is_unlike_one_by_gold_only_in_its_targets(tmp_path: Path) -> None:
    config = worked_config(tmp_path)
    one, _ = read_round(finish(config, "plan.targets=complexity"), 1)
    code, said = command("run", config, "--name", "gold")
    assert code == 0, said
    other, report = read_round(tmp_path / "gold", 1)
    assert [row.id for row in one] == [row.id for row in other] and report.methods is None
    assert (
        all("\n" in row.target for row in other) and not (tmp_path / "gold" / "round_01" / "build" / CHOICES).exists()
    )


def test_an_approximate_entropy_is_called_so_wherever_it_shows(tmp_path: Path) -> None:
    run = finish(worked_config(tmp_path), "plan.targets=complexity", "plan.complexity.entropy=served")
    said = "approximate, 20 likeliest"
    assert {c.entropy_is for c in read_records(run / "round_01" / "build" / CHOICES, TargetChoice)} == {said}
    _, report = read_round(run, 1)
    assert report.methods is not None and report.methods.targets is not None
    assert report.methods.targets.entropy_is == said and said in (run / "report.md").read_text()


def test_worked_solutions_come_last_where_two_phases_are_wanted(tmp_path: Path) -> None:
    config = worked_config(tmp_path)
    run = finish(config, "plan.targets=complexity", "plan.complexity.order=two_phase", "rounds=2", "control=last_round")
    for round_ in (1, 2):
        rows, report = read_round(run, round_)
        assert report.methods is not None and report.methods.targets is not None and report.training is not None
        answers, solutions = report.methods.targets.phases
        worked = sum("\n" in row.target for row in rows)
        assert (answers.form, answers.rows) == ("answer", len(rows) - worked)
        assert (solutions.form, solutions.rows) == ("solution", worked)
        assert report.training.phase_steps == (1, 1)
        assert "Taught in two phases, replayed rows among them" in (run / "report.md").read_text()
    code, said = command("bundle", run, "--to", tmp_path / "bundle.zip")
    assert code == 0, said
    code, said = command("verify", tmp_path / "bundle.zip")
    assert code == 0, said


REFUSED = [
    ({}, ["plan.targets=complexity"], None, "generated examples have none"),
    ({"solutions": []}, ["plan.targets=complexity"], "worked", "no column of `solutions`"),
    ({}, ["plan.targets=complexity_random", "data.grader=judge", "data.grader_rubric=x"], "worked", "judge"),
    ({}, ["plan.targets=short"], "worked", "'gold', 'answers', 'complexity', 'complexity_random' or 'own'"),
    ({}, ["plan.complexity.easy=0.9", "plan.complexity.hard=0.2"], "worked", "more than 1 together"),
    ({}, ["training.dft_skills=[add]"], "worked", "training.loss: dft"),
    ({}, ["training.ica.neighbours=0"], "worked", "greater than or equal to 1"),
]


@pytest.mark.parametrize(("columns", "settings", "kind", "said"), REFUSED)
def test_what_cannot_be_done_is_refused_by_the_config(
    tmp_path: Path, columns: Any, settings: list[str], kind: str | None, said: str
) -> None:
    path = worked_config(tmp_path, **columns) if kind else write_config(tmp_path)
    with pytest.raises(ConfigError, match=said):
        load_config(path, settings)


def test_solutions_of_which_none_is_right_stop_the_run_with_what_to_do(tmp_path: Path) -> None:
    config = worked_config(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r | {"s": f"it is {r['a'] + 1}"}) + "\n" for r in rows))
    code, said = command("run", config, "--name", "run", "--set", "plan.targets=complexity")
    assert code == 2 and "the grader accepts" in said and "plan.targets to gold" in " ".join(said.split())


# The loss


def test_dft_is_told_in_the_report(tmp_path: Path) -> None:
    run = finish(write_config(tmp_path), "training.loss=dft", "training.dft_skills=[chain_sum]")
    rows, report = read_round(run, 1)
    assert report.methods is not None
    assert report.methods.dft_rows == sum("chain_sum" in {row.skill, *row.skills} for row in rows)
    assert report.methods.first_probability == 0.5
    assert "Loss DFT for" in (run / "report.md").read_text()
    assert report.training is not None and report.training.divergence_margin is None
    for last, said in ((1.7, True), (1.4, False)):
        training = report.training.model_copy(update={"first_loss": 1.5, "last_loss": last})
        words = methods_words(report.model_copy(update={"training": training}), Timings())
        assert ("The loss rose" in words) is said


def test_skills_of_dft_that_nobody_has_are_refused(tmp_path: Path) -> None:
    code, said = command(
        "run", write_config(tmp_path), "--name", "run", "--set", "training.loss=dft", "--set", "training.dft_skills=[x]"
    )
    assert code == 2 and "training.dft_skills" in said and "chain_sum" in said


# The bench


def test_layers_are_compared_on_uniform_rows(tmp_path: Path) -> None:
    assert bench(tmp_path, parse_strategies("ica,dft"), 1).trainings == 4
    trainings = tmp_path / "bench" / "trainings"
    found = {
        name: (trainings / f"{name}-1" / "round_01" / "train" / WEIGHTS).exists() for name in ("uniform", "ica", "dft")
    }
    assert found == {"uniform": False, "ica": True, "dft": False}
    curves = json.loads((trainings / "dft-1" / "round_01" / "train" / "losses.json").read_text())
    assert "probabilities" in curves
    built = trainings / "ica-1" / "round_01" / "build"
    taught = {r.example_id for r in read_records(built / "training_set.jsonl", TrainingRow)}
    assert not taught & {d.example_id for d in read_records(built / HOLDOUT, Demonstration)}
    before = (tmp_path / "bench" / "bench.json").read_bytes()
    bench(tmp_path, parse_strategies("ica,dft"), 1)
    assert (tmp_path / "bench" / "bench.json").read_bytes() == before


def test_complexity_is_compared_with_its_control(tmp_path: Path) -> None:
    config = worked_config(tmp_path)
    code, said = command(
        "bench", config, "--arms", "complexity,complexity_random,answers", "--seeds", "1", "--name", "b"
    )
    assert code == 0, said
    texts = {}
    for name in ("uniform", "complexity", "complexity_random", "answers"):
        built = tmp_path / "b" / "trainings" / f"{name}-1" / "round_01" / "build"
        rows = read_records(built / "training_set.jsonl", TrainingRow)
        texts[name] = fmean("\n" in row.target for row in rows)
    assert texts["uniform"] == 1 and 0 < texts["complexity"] < 0.5 and 0 < texts["complexity_random"] < 0.5
    assert texts["answers"] == 0
    made = BenchReport.model_validate_json((tmp_path / "b" / "bench.json").read_text())
    found = {s.strategy: s.responses for s in made.budgets[0].strategies}
    assert {name for name, saving in found.items() if saving} == texts.keys() - {"uniform"}
    answers, complexity = found["answers"], found["complexity"]
    assert answers is not None and complexity is not None
    assert answers.tokens < complexity.tokens < complexity.uniform_tokens
    assert answers.rows > complexity.rows > complexity.uniform_rows, "as many tokens for all"
    assert "answers takes" in (tmp_path / "b" / "bench.md").read_text()


def test_answers_alone_need_no_worked_solutions(tmp_path: Path) -> None:
    run = finish(worked_config(tmp_path, solutions=[]), "plan.targets=answers")
    rows, report = read_round(run, 1)
    assert all("\n" not in row.target for row in rows)
    assert report.methods is not None and report.methods.targets is not None
    assert report.methods.targets.rule == "answers" and report.methods.targets.rows == {}
    assert "New rows teach the answer alone." in (run / "report.md").read_text()
    assert {c.part for c in read_records(run / "round_01" / "build" / CHOICES, TargetChoice)} == {None}


def test_arms_that_need_solutions_are_refused_where_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG + f"runs_dir: {tmp_path}\n")
    code, said = command("bench", path, "--arms", "complexity", "--seeds", "1")
    assert code == 2 and "generated examples have none" in said
