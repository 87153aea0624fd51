"""A whole bench with the fake student: what is shared, what is equal, and what a kill leaves to be done."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from command import canonical_files, tutelage
from typer.testing import CliRunner

from agents.bench import ASKED, BEGAN, Bench, check_bench, open_bench, run_bench
from agents.bench_forecast import bench_forecast, forecast_words
from agents.cli import app
from agents.progress import ProgressPrinter
from agents.session import open_loop
from curriculum.bench_records import BenchReport
from curriculum.bench_views import render_html, render_markdown
from curriculum.config import load_config
from curriculum.difficulty_records import ItemEntropy
from curriculum.errors import StopRequested, StudentError, TrainingError, UserError
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_json, read_records
from curriculum.strategies import Strategy, parse_strategies
from student.fakes import FakeStudent
from student.interface import TrainingResult

CONFIG = """\
data:
  kind: reasoning_gym
  per_task: 150
  tasks:
    chain_sum:
      - {difficulty: 1, params: {min_terms: 2, max_terms: 2, max_digits: 1}}
      - {difficulty: 3, params: {min_terms: 5, max_terms: 6, max_digits: 2}}
    gcd: [{difficulty: 1, params: {max_value: 50}}, {difficulty: 2}]
    letter_counting: [{difficulty: 2, params: {min_words: 12, max_words: 20}}]
  splits: {probe: 60, gate: 1, final: 90}
student: {engine: fake, base: fake, max_new_tokens: 8}
plan: {rows_per_round: 60}
training: {epochs: 2}
"""
ENTROPY_FILE = "answers/base/pool_entropy/entropies.jsonl"
ARMS = parse_strategies("stat_sel,stat_syn,generated_uniform,hard,learnability")
BY_DIFFICULTY = parse_strategies("easy,middle")
VARYING = {BEGAN, ASKED, "config.yaml"}
"""Files that name times or the folder."""
Train = Callable[..., TrainingResult]


def write(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "small.yaml"
    path.write_text(text + f"runs_dir: {folder}\n")
    return path


def bench(folder: Path, strategies: tuple[Strategy, ...] = ARMS, seeds: int = 2, **changes: Any) -> BenchReport:
    """Runs or goes on with the bench `folder/bench`, in this process."""
    config = load_config(write(folder), [f"{key}={value}" for key, value in changes.items()])
    run = open_bench(config, "bench")
    with run, open_loop(run, config, ProgressPrinter(io.StringIO())) as loop:
        made = run_bench(loop, Bench(strategies, seeds))
    assert isinstance(made, BenchReport)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed bench."""
    folder = tmp_path_factory.mktemp("undisturbed")
    bench(folder)
    return folder / "bench"


def made_of(folder: Path) -> BenchReport:
    return BenchReport.model_validate(json.loads((folder / "bench.json").read_text()))


def rows(folder: Path, name: str) -> list[TrainingRow]:
    return read_records(folder / "trainings" / name / "round_01" / "build" / "training_set.jsonl", TrainingRow)


def files(folder: Path) -> dict[str, str]:
    return {name: of for name, of in canonical_files(folder).items() if name not in VARYING}


def test_the_base_and_the_labels_are_shared_and_every_adapter_answers_once(finished: Path) -> None:
    made = made_of(finished)
    assert made.status == "finished" and made.trainings == made.wanted == 14
    adapters = {t.adapter for s in made.budgets[0].strategies for t in s.trainings}
    assert len(adapters) == 14
    assert {p.name for p in (finished / "answers").iterdir()} == {"base"} | adapters
    assert sorted(p.name for p in (finished / "answers" / "base").iterdir()) == ["final", "pool_entropy", "probe"]
    assert all([p.name for p in (finished / "answers" / name).iterdir()] == ["final"] for name in adapters)
    stages = [p.parent.name for p in finished.rglob("done.json")]
    assert {name: stages.count(name) for name in ("prepare", "label", "diagnose", "profile", "lengths", "train")} == {
        "prepare": 1,
        "label": 1,
        "diagnose": 1,
        "profile": 1,
        "lengths": 1,
        "train": 14,
    }
    assert not list(finished.rglob("*.journal"))


def test_every_training_gets_the_same_tokens(finished: Path) -> None:
    made = made_of(finished)
    trainings = {f"{s.strategy}-{t.seed}": t for s in made.budgets[0].strategies for t in s.trainings}
    assert {name: t.training_tokens / made.budgets[0].tokens for name, t in trainings.items()} == pytest.approx(
        dict.fromkeys(trainings, 1.0), rel=0.01
    )
    assert trainings["hard-1"].rows < trainings["uniform-1"].rows, "longer rows, so fewer of them"
    for name, training in trainings.items():
        built = read_json(finished / "trainings" / name / "round_01" / "build" / "build.json")
        assert built["tokens"] == training.training_tokens, "counted beforehand as the trainer counts"


def test_strategies_differ_as_they_should(finished: Path) -> None:
    by_skill = {s: Counter(r.skill for r in rows(finished, f"{s}-1")) for s in ARMS}
    for even in ("uniform", "uniform_again", "generated_uniform", "hard"):
        counts = by_skill[even]
        assert max(counts.values()) - min(counts.values()) <= 1, even
    profile = read_json(finished / "round_00" / "profile" / "profile.json")
    missing = {part["skill"]: part["missing"] for part in profile["skills"]}
    worst, best = max(missing, key=lambda s: missing[s]), min(missing, key=lambda s: missing[s])
    assert missing[worst] > missing[best]
    for targeted in ("stat_sel", "stat_syn"):
        assert by_skill[targeted][worst] > by_skill[targeted][best]
    for strategy in ARMS:
        written = strategy in ("stat_syn", "generated_uniform")
        assert {r.origin for r in rows(finished, f"{strategy}-1")} == ({"written"} if written else {"pool"})
    unsure = {e.example_id: e.entropy for e in read_records(finished / ENTROPY_FILE, ItemEntropy)}
    hard, even = (fmean(unsure[r.example_id] for r in rows(finished, f"{s}-1")) for s in ("hard", "uniform"))
    assert hard > even, "those of which the student is least sure"


def test_seeds_draw_other_rows_and_no_row_is_held_out(finished: Path) -> None:
    drawn = {
        name: {r.example_id for r in rows(finished, name)} for name in ("uniform-1", "uniform-2", "uniform_again-1")
    }
    assert len({frozenset(ids) for ids in drawn.values()}) == 3
    examples = [json.loads(line) for line in (finished / "prepare" / "examples.jsonl").read_text().splitlines()]
    pool = {e["id"] for e in examples if e["split"] == "pool"}
    assert all(ids <= pool for ids in drawn.values())
    held_out = {e["question"] for e in examples if e["split"] != "pool"}
    assert not held_out & {r.question for s in ARMS for r in rows(finished, f"{s}-2")}


def test_rows_beyond_the_tokens_are_on_record(finished: Path) -> None:
    built = finished / "trainings" / "stat_syn-1" / "round_01" / "build"
    cut = [json.loads(line) for line in (built / "dropped.jsonl").read_text().splitlines()]
    assert cut and {r["reason"] for r in cut} == {"beyond the tokens that every training of the bench gets"}
    written = (built / "written.jsonl").read_text().splitlines()
    assert len(written) == len(cut) + len(rows(finished, "stat_syn-1"))


def test_strategies_choose_by_what_is_missing_after_a_warm_up(tmp_path: Path) -> None:
    arms = parse_strategies("stat_sel,ega,stat_syn")
    made = bench(tmp_path, arms, 1, **{"bench.warm_up_rows": 30})
    folder = tmp_path / "bench"
    warm = read_records(folder / "round_01" / "build" / "training_set.jsonl", TrainingRow)
    assert abs(len(warm) - 30) <= 2 and {r.origin for r in warm} == {"pool"}
    per_skill = Counter(r.skill for r in warm).values()
    assert max(per_skill) - min(per_skill) <= 1
    profiles = [read_json(folder / f"round_0{n}" / "profile" / "profile.json") for n in (0, 1)]
    assert profiles[0]["adapter"] == "base" and profiles[1]["adapter"].startswith("bench-r01-")
    missing = {part["skill"]: part["missing"] for part in profiles[1]["skills"]}
    worst, best = max(missing, key=lambda s: missing[s]), min(missing, key=lambda s: missing[s])
    for strategy in arms:
        of = read_records(
            folder / "trainings" / f"{strategy}-1" / "round_02" / "build" / "training_set.jsonl", TrainingRow
        )
        own, replayed = ([r for r in of if (r.origin == "replay") == old] for old in (False, True))
        assert {r.example_id for r in replayed} == {r.example_id for r in warm}, "the warm-up is in every training"
        if strategy.startswith("stat"):
            counts = Counter(r.skill for r in own)
            assert counts[worst] > counts[best], strategy
        built = read_json(folder / "trainings" / f"{strategy}-1" / "round_02" / "build" / "build.json")
        assert built["tokens"] == pytest.approx(made.budgets[0].tokens, rel=0.02)
    assert not (folder / "answers" / profiles[1]["adapter"] / "final").exists(), "the warm-up is not compared"
    assert any(f"same {len(warm)} even rows" in note for note in made.notes)
    again = bench(tmp_path, arms, 1, **{"bench.warm_up_rows": 30})
    assert again == made
    config = load_config(tmp_path / "small.yaml", ["bench.warm_up_rows=30"])
    assert bench_forecast(config, Bench(arms, 1), folder).answers == 0


def count_trainings(monkeypatch: pytest.MonkeyPatch, at: int = 0, error: BaseException | None = None) -> list[int]:
    """Counts the fake's trainings; the one of number `at` raises instead."""
    begun: list[int] = []
    train: Train = FakeStudent.train

    def counted(self: FakeStudent, *args: Any) -> TrainingResult:
        begun.append(len(begun) + 1)
        if error is not None and len(begun) == at:
            raise error
        return train(self, *args)

    monkeypatch.setattr(FakeStudent, "train", counted)
    return begun


def test_what_is_finished_is_not_repeated(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = count_trainings(monkeypatch, at=6, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path)
    assert made_of(tmp_path / "bench").trainings == 5
    bench(tmp_path)
    assert len(begun) == 14 + 1
    assert files(tmp_path / "bench") == files(finished)
    bench(tmp_path)
    assert len(begun) == 15, "a finished bench trains nothing"


@pytest.mark.real
def test_trainings_made_at_once_are_the_same(finished: Path, tmp_path: Path) -> None:
    done = tutelage(
        *("bench", write(tmp_path), "--name", "bench", "--arms", ",".join(ARMS), "--seeds", "2"),
        *("--set", "bench.at_once=3"),
    )
    assert done.code == 0, done.err
    assert "training 14 of 14, learnability seed 2:" in done.err
    assert files(tmp_path / "bench") == files(finished)


def test_what_fails_of_several_at_once_ends_those_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(write(tmp_path))
    run = open_bench(config, "bench")
    count_trainings(monkeypatch, at=2, error=TrainingError("the loss became nan at step 4: lower it"))
    with run, ExitStack() as stack:
        loops = [stack.enter_context(open_loop(run, config, ProgressPrinter(io.StringIO()))) for _ in range(2)]
        with pytest.raises(UserError, match="the loss became nan"):
            run_bench(loops[0], Bench(ARMS, 2), loops[1:])
    assert 0 < len(list((run.path / "trainings").glob("*/round_01/train/done.json"))) < 14
    monkeypatch.undo()
    assert bench(tmp_path).trainings == 14


def test_more_seeds_and_strategies_go_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = count_trainings(monkeypatch)
    first = bench(tmp_path, parse_strategies("stat_sel"), 1)
    assert len(begun) == 3 and first.screening
    more = bench(tmp_path, parse_strategies("stat_sel,ega"), 2)
    assert len(begun) == 8 and more.trainings == 8
    again = {s.strategy: s.trainings[0] for s in more.budgets[0].strategies}
    assert all(again[s.strategy] == s.trainings[0] for s in first.budgets[0].strategies)


def test_a_stop_ends_between_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(write(tmp_path))
    run = open_bench(config, "bench")
    with run, open_loop(run, config, ProgressPrinter(io.StringIO())) as loop:
        train: Train = FakeStudent.train
        monkeypatch.setattr(FakeStudent, "train", lambda *args: (loop.stopping.set(), train(*args))[1])
        with pytest.raises(StopRequested):
            run_bench(loop, Bench(ARMS, 1))
    assert [p.name for p in (run.path / "trainings").iterdir()] == ["uniform-1"]


def test_a_worker_that_dies_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = count_trainings(monkeypatch, at=2, error=StudentError("the worker died"))
    assert bench(tmp_path, parse_strategies("uniform"), 1).trainings == 2
    assert len(begun) == 3


def test_a_training_that_diverges_is_told_with_its_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_trainings(monkeypatch, at=3, error=TrainingError("the loss became nan at step 4: lower it"))
    said = r"stat_sel, seed 1: the loss became nan[^$]*--set training.KEY=VALUE, or leave stat_sel out of --arms"
    with pytest.raises(UserError, match=said):
        bench(tmp_path)
    assert bench(tmp_path, parse_strategies("learnability"), 1).status == "finished"


# The command line.


def command(*args: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["bench", *map(str, args)])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.real
def test_the_command_prints_a_table_and_a_last_line(tmp_path: Path) -> None:
    code, out, err = tutelage("bench", write(tmp_path), "--arms", "stat_sel", "--seeds", "2", "--json")
    assert code == 0, err
    folder = tmp_path / "bench-small"
    assert json.loads(out.splitlines()[-1]) == {
        "run": str(folder),
        "status": "finished",
        "trainings": 6,
        "report": str(folder / "bench.html"),
    }
    assert re.search(r"stat_sel +2 +\d", out) and "Right by skill" in out
    assert "3 strategies with 2 seeds: 6 trainings" in err and "to come: 690 answers" in err
    assert "training 6 of 6, stat_sel seed 2:" in err
    assert "this is a screening" in " ".join(out.split())

    code, out, err = tutelage("bench", write(tmp_path), "--arms", "stat_sel,ega", "--seeds", "2")
    assert "8 trainings, 6 of them finished" in err and "by the trainings that are finished" in err
    assert "asked for otherwise before (uniform, uniform_again, stat_sel with 2 seeds)" in " ".join(out.split())
    assert len((folder / ASKED).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--arms", "ega,best"], "expected some of uniform"),
        (["--arms", "ega", "--seeds", "0"], "--seeds"),
        (["--arms", "ega", "--budgets", "0.5,0"], "--budgets: expected shares of plan.rows_per_round's tokens"),
        (["--arms", "ega", "--budgets", "0.001"], "is no row: give a larger share"),
        (["--set", "plan.rows=3"], "unknown key `plan.rows`"),
        (["--name", "../x"], "expected a plain folder name"),
        (["--set", "bench.at_once=2", "--set", "student.engine=vllm"], "one adapter at a time: set bench.at_once to 1"),
    ],
)
def test_what_a_user_can_fix_ends_with_2_and_leaves_nothing(tmp_path: Path, args: list[str], said: str) -> None:
    code, _, err = command(write(tmp_path), *args)
    assert code == 2 and said in err and "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


def test_nobody_can_write_rows_for_a_file_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "1 + 1?", "gold": "2"}\n')
    text = f"""\
data: {{kind: file, path: {tmp_path / "rows.jsonl"}, format: examples, splits: {{probe: 1, gate: 1, final: 1}}}}
student: {{engine: fake, base: fake}}
plan: {{rows_per_round: 2, write_share: 0}}
"""
    code, _, err = command(write(tmp_path, text), "--arms", "stat_syn,generated_uniform")
    assert code == 2 and "stat_syn and generated_uniform want written rows" in err and "teacher.kind to llm" in err


def test_other_settings_are_another_bench(finished: Path) -> None:
    config = finished.parent / "small.yaml"
    code, _, err = command(config, "--name", "bench", "--set", "training.epochs=3", "--set", "seed=4")
    assert code == 2 and "seed: 0 → 4" in err and "training.epochs: 2 → 3" in err and "--name" in err


def test_a_bench_is_no_run(finished: Path) -> None:
    done = CliRunner().invoke(app, ["resume", str(finished)])
    assert done.exit_code == 2 and "expected a run's folder" in done.stderr


def test_a_forecast_alone_does_nothing(tmp_path: Path) -> None:
    code, out, err = tutelage("bench", write(tmp_path), "--arms", "ega", "--seeds", "4", "--forecast")
    assert (code, out) == (0, "")
    assert "12 trainings" in err and "smallest difference from uniform it can see" in err
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


def test_minutes_are_unknown_for_another_student_and_one_seed_sees_nothing(tmp_path: Path) -> None:
    config = load_config(write(tmp_path), ["student.base=some/model"])
    wanted = Bench(parse_strategies("ega"), 1)
    made = bench_forecast(config, wanted, tmp_path / "none")
    assert made.minutes is None and made.detectable is None and made.answers == 60 + 4 * 90
    text = "\n".join(forecast_words(config, wanted, made))
    assert "minutes unknown" in text and "without intervals" in text


def test_the_schema_is_published(finished: Path) -> None:
    done = CliRunner().invoke(app, ["schema", "bench"])
    assert json.loads(done.stdout) == BenchReport.model_json_schema()


SHORT = parse_strategies("stat_syn")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed bench of three trainings."""
    folder = tmp_path_factory.mktemp("short")
    bench(folder, SHORT, 1)
    return folder / "bench"


@pytest.mark.real
@pytest.mark.parametrize("point", [("done", 11), ("line", 200), ("rename", 55), ("step", 2)], ids=lambda p: p[0])
def test_a_kill_anywhere_changes_nothing(tmp_path: Path, short: Path, point: tuple[str, int]) -> None:
    args = ("bench", write(tmp_path), "--name", "bench", "--arms", ",".join(SHORT), "--seeds", "1")
    assert tutelage(*args, kill_at=point).code == -9
    assert (tmp_path / "bench" / "trainings" / "uniform-1").exists(), "a training was under way"
    assert made_of(tmp_path / "bench").status == "running"
    done = tutelage(*args)
    assert done.code == 0, done.err
    assert files(tmp_path / "bench") == files(short)


def test_easy_and_middle_rows_by_drawn_answers(tmp_path: Path) -> None:
    made = bench(tmp_path, BY_DIFFICULTY, 1, **{"student.signals": "{samples: 3}"})
    assert [s.strategy for s in made.budgets[0].strategies] == [*BY_DIFFICULTY]
    folder = tmp_path / "bench"
    drawn = {
        s: {
            row.example_id
            for row in read_records(folder / f"trainings/{s}-1/round_01/build/training_set.jsonl", TrainingRow)
        }
        for s in ("easy", "middle")
    }
    assert all(drawn.values()) and not drawn["easy"] & drawn["middle"]
    assert (folder / "answers" / "base" / "pool_samples" / "signals.jsonl").exists()
    slices = {s.strategy: [(of.slice, of.items) for of in s.slices] for s in made.budgets[0].strategies}
    assert slices["easy"] == slices["uniform"] == [(of.slice, of.items) for of in made.slices]
    assert made.sliced_by == "difficulty" and [of.slice for of in made.slices] == ["level 1", "level 2", "level 3"]
    assert sum(of.items for of in made.slices) == made.items
    assert "Right by slice" in render_markdown(made) and "Right by slice" in render_html(made)


def test_a_bin_that_nothing_is_in_is_refused(tmp_path: Path) -> None:
    # The fake is right in no sample of most items, and as unsure of one as of another.
    with pytest.raises(UserError, match="strategy hard: expected pool items that are so"):
        bench(tmp_path, parse_strategies("hard"), 1, **{"student.signals": "{samples: 2}"})
    assert not (tmp_path / "bench" / "trainings").exists(), "said before anything is trained"


def test_without_drawn_answers_and_solutions_rows_are_easy_by_entropy(tmp_path: Path) -> None:
    made = bench(tmp_path, BY_DIFFICULTY, 1)
    unsure = {e.example_id: e.entropy for e in read_records(tmp_path / "bench" / ENTROPY_FILE, ItemEntropy)}
    folder, skill = tmp_path / "bench", "gcd"
    spread = {s: [unsure[r.example_id] for r in rows(folder, f"{s}-1") if r.skill == skill] for s in ("easy", "middle")}
    assert max(spread["easy"]) < min(spread["middle"])
    (note,) = [note for note in made.notes if note.startswith("Easy, middle and hard: ")]
    assert "thirds of each skill's pool by how unsure the student is at the first token" in note


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training.soup": "true"}, "training.soup averages the adapters of a run's rounds"),
        ({"plan.unwanted": "{pairs: pairs.jsonl}"}, "plan.unwanted drops rows .* a bench drops none"),
    ],
)
def test_what_a_bench_cannot_do_is_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    config = load_config(write(tmp_path), [f"{key}={value}" for key, value in changes.items()])
    with pytest.raises(UserError, match=said):
        check_bench(config, Bench(parse_strategies("stat_sel"), 1))
