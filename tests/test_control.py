"""The control arm: untargeted rows in place of the targeted ones, all else the same, and nothing decided by it."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from command import canonical_files, write_config
from pages import Page
from samples import training_row
from test_extra import config_of, loop_of
from test_gate import ONE_SKILL, C, W, grades
from test_plan import planned
from test_report import run_report, terminal, trained

from agents.control import BUILD, TRAIN
from agents.forecast import forecast
from agents.fork import fork_run
from agents.graph import run_plain
from agents.progress import ProgressPrinter
from agents.reporting import write_pages
from agents.session import open_loop, open_run
from curriculum.config import load_config
from curriculum.control import LAYER, Arm, compare, control_order, control_rows, draw_untargeted
from curriculum.errors import StudentError, TrainingError, UserError
from curriculum.mixture import index_pool
from curriculum.records import Example, SkillLabel
from curriculum.report import RunReport, Timings
from curriculum.report_html import render_html
from curriculum.report_text import render_markdown
from curriculum.round_records import Adapter, TrainingRow
from curriculum.rundir import read_json, read_record, read_records
from curriculum.training_config import TrainingConfig
from student.chat_format import EncodedRow
from student.fakes import FakeStudent
from student.train_worker import TrainingData, seeded_batches

# Rows


def test_generated_rows_are_spread_evenly_over_all_that_can_be_generated():
    plan = planned()
    order = control_order(plan, 11, {"sort": (1, 2), "add": (3,), "count": ()})
    assert {s.skill: s.written_rows for s in order.skills} == {"add": {3: 4}, "sort": {1: 4, 2: 3}}
    assert order.seed != plan.seed and not any(s.pool_rows for s in order.skills)
    assert control_order(plan, 0, {}).written_rows == 0


def test_every_pool_item_is_as_likely_as_any_other_whatever_its_skills():
    pool = index_pool([(f"a{n}", ("add",), 1) for n in range(30)] + [(f"s{n}", ("sort", "add"), 1) for n in range(10)])
    drawn: Counter[str] = Counter()
    for seed in range(300):
        draws = draw_untargeted(10, seed, pool, {}, 4)
        assert sum(d.rows for d in draws) == 10 and all(d.rows == 1 for d in draws)
        drawn.update(d.example_id for d in draws)
    share = sum(n for id_, n in drawn.items() if id_.startswith("s")) / drawn.total()
    assert share == pytest.approx(0.25, abs=0.03)
    assert [d.rows for d in draw_untargeted(99, 0, pool, {"a0": 2, "gone": 9}, 2)] == [2] * 39
    assert draw_untargeted(10, 1, pool, {}, 4) != draw_untargeted(10, 2, pool, {}, 4)


def test_a_control_replays_the_same_rows_and_says_what_chose_the_others():
    targeted = [
        training_row(id="t", example_id="t"),
        training_row(id="r", example_id="old", origin="replay", layer="replay"),
    ]
    example = Example.make(question="q", gold="1", grader="exact", source="test")
    label = SkillLabel(example_id=example.id, teacher="t", prompt_hash="", skills=("add",), difficulty=1, reason="")
    draws = draw_untargeted(2, 0, index_pool([(example.id, ("add",), 1)]), {}, 4)
    arguments = ({example.id: example}, [], targeted[1:], {example.id: label}, lambda e: ["t"])
    rows = control_rows(planned(), targeted, draws, *arguments)
    assert [row for row in rows if row.origin == "replay"] == targeted[1:]
    assert [(row.origin, row.layer) for row in rows if row.origin != "replay"] == [("pool", LAYER)] * 2
    assert "t" not in {row.example_id for row in rows}


@pytest.mark.parametrize("steps", [None, 2, 4, 5, 11])
def test_a_training_of_given_steps_leaves_out_its_last_batches_or_begins_again(steps):
    rows = [(EncodedRow((n,) * 10, 5),) for n in range(8)]
    training = TrainingConfig(batch_tokens=20, epochs=1)
    data = TrainingData(rows, [1.0] * 8, [])
    plain, made = seeded_batches(data, training, 3), seeded_batches(data, training, 3, steps)
    assert len(plain) == 4 and len(made) == (steps or 4)
    assert all(batch == plain[at % 4] for at, batch in enumerate(made))


# The comparison


def arm(name: str, right: int, of: int = 40) -> Arm:
    rows = [training_row(id=o, origin=o) for o in ("pool", "written", "replay")]
    return Arm(trained(name), rows, grades([C] * right + [W] * (of - right), name))


def test_the_two_are_paired_and_the_seeds_noise_widens_the_interval():
    made = compare(2, arm("t", 30), arm("c", 20), ONE_SKILL, 0.03)
    assert (made.change.n, made.change.gained, made.change.lost) == (40, 10, 0)
    assert (made.targeted.rate.correct, made.control.rate.correct, made.targeted.adapter) == (30, 20, "t")
    assert [(s.skill, s.before.correct, s.after.correct) for s in made.skills] == [("add", 20, 30)]
    assert (made.control.pool, made.control.written, made.control.replay) == (1, 1, 1)
    half = (made.change.high - made.change.low) / 2
    assert made.seed_high - made.seed_low == pytest.approx(2 * np.hypot(half, 1.96 * 0.03), rel=1e-4)
    alone = compare(2, arm("t", 30), arm("c", 20), ONE_SKILL, 0.0)
    assert (alone.seed_low, alone.seed_high) == pytest.approx((alone.change.low, alone.change.high))


def report_with(targeted: int, control: int, sd: float) -> RunReport:
    report = run_report("gcd")
    made = compare(1, arm("t", targeted), arm("c", control), ONE_SKILL, sd)
    last = report.rounds[-1].model_copy(update={"control": made})
    final = report.final.model_copy(update={"control": made}) if report.final else None
    return report.model_copy(update={"rounds": (*report.rounds[:-1], last), "final": final})


@pytest.mark.parametrize("view", ["html", "markdown", "terminal", "round"])
@pytest.mark.parametrize(
    ("right", "sd", "said"),
    [(35, 0.01, "more than another seed of that noise explains"), (22, 0.02, "no more than another seed could have")],
)
def test_every_view_says_what_one_seed_can_and_cannot_show(view, right, sd, said):
    report = report_with(right, 20, sd)
    views = {
        "html": Page(render_html(report, Timings())).text,
        "markdown": render_markdown(report, Timings()).replace("\\", ""),
        "terminal": terminal(report, None),
        "round": terminal(report, 1),
    }
    text = " ".join(views[view].split())
    for words in (said, "One training seed each", "only several seeds of both show", "control 50.0 % (20/40"):
        assert words in text
    assert ("The gate chose by these items" in text) == (view != "terminal")
    assert "1 drawn from the pool, 1 generated" in text


# The whole loop


def file_config(folder: Path, name: str, arms: str) -> Path:
    """Two rounds on a file's rows, which lie beside the config: quicker than a generator."""
    path = config_of(folder, [])
    tree = yaml.safe_load(path.read_text()) | {"rounds": 2, "control": arms, "runs_dir": str(folder / name)}
    tree["plan"] |= {"rows_per_round": 30, "replay_rows": 6, "allocation": "failures"}
    tree["gate"] = {"retrain_sd": 0.0, "alpha": 0.4}
    path.write_text(yaml.safe_dump(tree))
    return path


def run_of(folder: Path, name: str, arms: str) -> Path:
    """A finished run; all in a folder have the same data."""
    with loop_of(file_config(folder, name, arms)) as loop:
        run_plain(loop)
        write_pages(loop.run, loop.config)
    return loop.run.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run with a control in every round, and without."""
    folder = tmp_path_factory.mktemp("runs")
    return {arms: run_of(folder, arms, arms) for arms in ("every_round", "none")}


def same_but_config(run: Path) -> dict[str, str]:
    """A run's canonical files; the config names where it is and whether it has controls."""
    return {**canonical_files(run), "config.yaml": ""}


def test_a_control_changes_nothing_that_decides(runs):
    controlled, plain = same_but_config(runs["every_round"]), same_but_config(runs["none"])
    ours = {path for path in controlled if "control" in path}
    assert {path.split("/")[1] for path in ours if path.startswith("round_")} == {BUILD, TRAIN}
    # The last candidate was rolled back, and answers the final split for the comparison alone.
    ours |= {path for path in controlled if re.match(r"answers/run-r02-.*/final/", path)}
    assert controlled.keys() - ours == plain.keys()
    differ = {path for path in plain if plain[path] != controlled[path]}
    reports = {f"round_0{r}/report/{file}.json" for r in (1, 2) for file in ("report", "done", "started")}
    assert differ == reports | {f"final/{file}.json" for file in ("final", "done", "started")} | {"report.json"}


def test_a_control_has_as_many_rows_the_same_replay_and_another_choice(runs):
    for r in (1, 2):
        folder = runs["every_round"] / f"round_0{r}"
        targeted, control = rows_of(folder)
        assert Counter(row.origin for row in targeted) == Counter(row.origin for row in control)
        replayed = [[row for row in rows if row.origin == "replay"] for rows in (targeted, control)]
        assert replayed[0] == replayed[1] and bool(replayed[0]) == (r == 2)
        assert {row.layer for row in control if row.origin != "replay"} == {LAYER}
        adapters = [read_record(folder / stage / "adapter.json", Adapter) for stage in ("train", TRAIN)]
        assert adapters[0].steps == adapters[1].steps and "-control-" in adapters[1].name


def test_generated_rows_are_replaced_by_generated_ones_of_every_skill_alike(tmp_path):
    with loop_of(write_config(tmp_path, extra="control: last_round\n")) as loop:
        config = loop.config.model_copy(update={"rounds": 1})
        run_plain(dataclasses.replace(loop, config=config))
    targeted, control = rows_of(loop.run.path / "round_01")
    assert (
        Counter(row.origin for row in targeted) == Counter(row.origin for row in control) == {"pool": 20, "written": 20}
    )
    cells = Counter((row.skill, row.difficulty) for row in control if row.origin == "written")
    assert set(cells.values()) == {5}, "two levels of one task, one of each other"
    assert not {row.question for row in control} & {e.question for e in held_out(loop.run.path)}


def rows_of(folder: Path) -> list[list[TrainingRow]]:
    """The training sets of a round and of its control."""
    return [read_records(folder / stage / "training_set.jsonl", TrainingRow) for stage in ("build", BUILD)]


def held_out(run: Path) -> list[Example]:
    return [e for e in read_records(run / "prepare" / "examples.jsonl", Example) if e.split != "pool"]


def test_the_report_has_each_rounds_control_and_the_last_one_on_the_final_split(runs):
    run, plain = runs["every_round"], runs["none"]
    report = read_record(run / "report.json", RunReport)
    assert [r.control.round if r.control else None for r in report.rounds] == [None, 1, 2]
    assert all(r.control.targeted.adapter == r.candidate for r in report.rounds[1:])
    assert report.final.control.round == 2 and report.final.control.change.n == report.split_sizes["final"]
    opened = [json.loads(line)["adapter"] for line in (run / "final_openings.jsonl").read_text().splitlines()]
    assert opened.count(report.final.control.control.adapter) == 1
    assert "round 2's candidate and its control" in report.final.opened
    assert "control" not in read_json(plain / "report.json")["final"]


def resumed(run: Path, arms: str) -> RunReport:
    """The report of a run that goes on with another setting."""
    found, config = open_run(run)
    config = config.model_copy(update={"control": arms})
    with open_loop(found, config, ProgressPrinter()) as loop:
        run_plain(loop)
        return write_pages(found, config)


def controls(report: RunReport) -> list[bool]:
    return [r.control is not None for r in report.rounds]


def test_a_fork_keeps_the_controls_of_the_rounds_it_takes_over_and_makes_none_for_others(runs):
    for arms, taken in (("every_round", True), ("none", False)):
        fork, config = fork_run(runs[arms], 1, "fork", ["training.epochs=2", "control=every_round"], lambda c: None)
        with open_loop(fork, config, ProgressPrinter()) as loop:
            run_plain(loop)
            assert controls(write_pages(fork, config)) == [False, taken, True]
        assert (fork.path / "round_01" / TRAIN).exists() == taken


def test_only_the_last_round_and_later_where_it_is_asked_for_later(tmp_path):
    run = run_of(tmp_path, "runs", "last_round")
    assert not (run / "round_01" / TRAIN).exists() and (run / "round_02" / TRAIN).exists()
    finished = {path: path.stat().st_mtime_ns for path in run.glob("round_02/*/done.json")}
    assert controls(resumed(run, "every_round")) == [False, True, True]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "what is finished is not made again"
    assert resumed(run, "none").final.control is None


def fail_control(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The second round's control leaves half an adapter and fails."""
    plain = FakeStudent.train

    def train(self, rows, settings, folder, log, progress):
        if settings.steps is not None and folder.parts[-3] == "round_02":
            folder.mkdir(parents=True)
            (folder / "rows.json").write_text("{")
            raise error
        return plain(self, rows, settings, folder, log, progress)

    monkeypatch.setattr(FakeStudent, "train", train)


def test_a_control_that_diverges_stops_the_run_and_can_be_left_out(tmp_path, monkeypatch):
    fail_control(monkeypatch, TrainingError("the loss became nan at step 1: lower training.learning_rate"))
    with pytest.raises(UserError, match=r"(?s)control of round 2.*--set control=none"):
        run_of(tmp_path, "runs", "every_round")
    assert controls(resumed(tmp_path / "runs/run", "none")) == [False, True, False]


def test_a_control_that_is_cut_off_goes_on_where_it_was(runs, monkeypatch):
    folder = runs["every_round"].parents[1]
    with monkeypatch.context() as patch:
        fail_control(patch, StudentError("the worker died"))
        with pytest.raises(StudentError):
            run_of(folder, "cut", "every_round")
    resumed(folder / "cut/run", "every_round")
    assert same_but_config(folder / "cut/run") == same_but_config(runs["every_round"])


def test_the_forecast_counts_what_a_control_costs(tmp_path):
    made = {
        arms: forecast(load_config(write_config(tmp_path, extra=f"control: {arms}\n")))
        for arms in ("none", "last_round", "every_round")
    }
    # Two rounds of 40 new rows, the second with 20 replayed; 60 gate and 40 final items.
    assert [made[arms].answers - made["none"].answers for arms in made] == [0, 60 + 80, 120 + 80]
    assert [made[arms].training_rows for arms in made] == [100, 160, 200]
