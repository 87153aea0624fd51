"""The layers on a round's training through the whole loop and the command line, with the fake student."""

import io
import json
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from command import FAKE, TASKS, write_config
from test_bench import CONFIG, bench
from typer.testing import CliRunner

from agents.cli import app
from agents.demonstrations import CHOSEN, HOLDOUT, WEIGHTS
from agents.progress import ProgressPrinter
from agents.session import open_loop, open_run
from agents.targets import CHOICES
from curriculum.config import load_config
from curriculum.errors import ConfigError
from curriculum.method_records import Demonstration, RowDemonstrations, RowWeight, TargetChoice
from curriculum.report import RoundReport
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_record, read_records
from curriculum.strategies import parse_strategies


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
    code, said = command("fork", run, "--round", "1", "--name", "other", "--set", "training.weights=ica")
    assert code == 0, said
    rows, report = read_round(tmp_path / "other", 2)
    shown = read_records(tmp_path / "other" / "round_02" / "build" / HOLDOUT, Demonstration)
    assert {row.origin for row in rows} >= {"replay"} and not {d.example_id for d in shown} & {
        r.example_id for r in rows
    }
    assert report.methods is not None


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


REFUSED = [
    ({}, ["plan.targets=complexity"], None, "generated examples have none"),
    ({"solutions": []}, ["plan.targets=complexity"], "worked", "no column of `solutions`"),
    ({}, ["plan.targets=complexity_random", "data.grader=judge", "data.grader_rubric=x"], "worked", "judge"),
    ({}, ["plan.targets=short"], "worked", "'gold', 'complexity', 'complexity_random' or 'own'"),
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
    code, said = command("bench", config, "--arms", "complexity,complexity_random", "--seeds", "1", "--name", "b")
    assert code == 0, said
    texts = {}
    for name in ("uniform", "complexity", "complexity_random"):
        built = tmp_path / "b" / "trainings" / f"{name}-1" / "round_01" / "build"
        rows = read_records(built / "training_set.jsonl", TrainingRow)
        texts[name] = fmean("\n" in row.target for row in rows)
    assert texts["uniform"] == 1 and 0 < texts["complexity"] < 0.5 and 0 < texts["complexity_random"] < 0.5


def test_arms_that_need_solutions_are_refused_where_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG + f"runs_dir: {tmp_path}\n")
    code, said = command("bench", path, "--arms", "complexity", "--seeds", "1")
    assert code == 2 and "generated examples have none" in said
