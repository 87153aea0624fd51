"""LiNeS and soups in a run: through the real command line, with the fake student and with a tiny model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import canonical_files, tutelage, write_config
from finished_run import edit, give_weights, make_fake_run
from tiny_model import make_tiny_model

from agents.merging import rank_limit
from curriculum.config import Config, load_config
from curriculum.merge_records import LinesChoice, SoupChoice
from curriculum.merging import choice_halves
from curriculum.records import Example, Grade
from curriculum.round_records import Adapter
from curriculum.rundir import file_hash, read_json, read_record, read_records

pytestmark = pytest.mark.real
BOTH = ("--set", "rounds=3", "--set", "training.lines=[1, 0.5, 0]", "--set", "training.soup=true")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds with LiNeS and soups; scaled adapters of the fake student are better, means are worse or as good."""
    folder = tmp_path_factory.mktemp("merged")
    done = tutelage("run", write_config(folder), "--name", "run", *BOTH)
    assert done.code == 0, done.err
    return folder / "run"


def choices(run: Path, round_: int) -> tuple[LinesChoice, SoupChoice | None]:
    folder = run / f"round_{round_:02d}"
    soup = folder / "soup" / "soup.json"
    return (
        read_record(folder / "lines" / "lines.json", LinesChoice),
        read_record(soup, SoupChoice) if soup.exists() else None,
    )


def right(run: Path, adapter: str, items: frozenset[str]) -> int:
    grades = read_records(run / "answers" / adapter / "probe" / "grades.jsonl", Grade)
    return sum(g.verdict == "correct" for g in grades if g.example_id in items)


def test_what_is_chosen_goes_to_the_gate_and_only_its_weights_stay(run: Path) -> None:
    for round_ in (1, 2, 3):
        lines, soup = choices(run, round_)
        folder = run / f"round_{round_:02d}"
        decision = read_json(folder / "gate" / "decision.json")
        adapter = read_record(folder / "merge" / "adapter.json", Adapter)
        assert decision["candidate"] == adapter.name and adapter.merged is not None
        taken = [] if soup is None else [step.round for step in soup.taken]
        assert [part.round for part in adapter.merged.ingredients] == [round_, *taken]
        assert adapter.merged.ingredients[0].a == lines.chosen.a < 1
        for part in adapter.merged.ingredients:
            trained = read_record(run / f"round_{part.round:02d}" / "train" / "adapter.json", Adapter)
            assert (part.adapter, part.files) == (trained.name, trained.files)
            assert part.a == choices(run, part.round)[0].chosen.a
        files = {p.name: file_hash(p) for p in (folder / "merge" / adapter.name).iterdir()}
        assert files == adapter.files
        assert sorted(p.name for p in (folder / "merge").iterdir() if p.is_dir()) == [adapter.name]
        assert not (folder / "drafts").exists()
    assert choices(run, 1)[1] is None and any(choices(run, r)[1].taken for r in (2, 3))  # type: ignore[union-attr]


def test_choices_are_made_on_halves_of_the_probe_that_nothing_judges(run: Path) -> None:
    examples = read_records(run / "prepare" / "examples.jsonl", Example)
    probe = [e for e in examples if e.split == "probe"]
    first, second = choice_halves(probe, 0)
    judged = {
        grade.example_id
        for split in ("gate", "final")
        for path in run.glob(f"answers/*/{split}/grades.jsonl")
        for grade in read_records(path, Grade)
    }
    assert judged and not judged & (first | second) and not first & second
    for round_ in (2, 3):
        lines, soup = choices(run, round_)
        assert soup is not None and lines.halved and soup.halved
        for candidate in lines.candidates:
            assert (candidate.right.correct, candidate.right.n) == (right(run, candidate.adapter, first), len(first))
        assert (soup.alone.correct, soup.alone.n) == (right(run, soup.adapter, second), len(second))
        best = soup.alone.correct
        for step in soup.steps:
            assert step.together.correct == right(run, step.soup, second)
            assert step.alone.correct == right(run, step.adapter, second)
            assert step.accepted == (step.together.correct >= best)
            best = step.together.correct if step.accepted else best
        scores = [step.alone.correct for step in soup.steps]
        assert scores == sorted(scores, reverse=True) and len(scores) == round_ - 1


def test_a_choice_alone_has_the_whole_probe_and_the_trained_adapter_goes_on_where_nothing_is_better(
    tmp_path: Path,
) -> None:
    done = tutelage("run", write_config(tmp_path), "--name", "run", "--set", "training.soup=true")
    assert done.code == 0, done.err
    soup = read_record(tmp_path / "run" / "round_02" / "soup" / "soup.json", SoupChoice)
    assert not soup.halved and soup.alone.n == 40
    assert not (tmp_path / "run" / "round_01" / "soup").exists()
    first = read_json(tmp_path / "run" / "round_01" / "gate" / "decision.json")["candidate"]
    assert first == read_json(tmp_path / "run" / "round_01" / "train" / "adapter.json")["name"]
    assert (tmp_path / "run" / "round_02" / "merge").exists() == bool(soup.taken)


def test_a_run_without_merging_has_no_trace_of_it(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path)
    assert not [p for name in ("lines", "soup", "merge", "drafts") for p in run.rglob(name)]
    assert "merged" not in read_json(run / "round_01" / "train" / "adapter.json")


def test_the_report_names_every_candidate_and_ingredient(run: Path) -> None:
    report = read_json(run / "report.json")
    assert "LiNeS, on 20 probe items (half of the probe" in (run / "report.md").read_text()
    for round_ in (2, 3):
        lines, soup = choices(run, round_)
        made = report["rounds"][round_]["methods"]
        assert made["lines"] == lines.model_dump(mode="json") and soup is not None
        assert made["soup"] == soup.model_dump(mode="json")
        said = tutelage("report", run, "--round", str(round_)).out
        words = " ".join(said.split())
        for candidate in lines.candidates:
            assert f"a = {candidate.a:g}: {candidate.missing.correct} of {candidate.missing.n} of those" in words
        assert f"Chosen: a = {lines.chosen.a:g}" in words
        for step in soup.steps:
            taken = "taken" if step.accepted else "left out"
            assert (
                f"{step.adapter} of round {step.round}" in words and f"{step.together.correct} of 20, {taken}" in words
            )
    became = {a["name"]: (a["became"], a["start"]) for a in report["adapters"]}
    for round_ in (1, 2, 3):
        merged = read_record(run / f"round_{round_:02d}" / "merge" / "adapter.json", Adapter)
        trained = read_record(run / f"round_{round_:02d}" / "train" / "adapter.json", Adapter)
        assert became[trained.name][0] == "merged" and trained.name in became[merged.name][1]
        assert became[merged.name][0] == report["rounds"][round_]["decision"]
    assert report["work"]["all_answers"] <= report["work"]["forecast_answers"]


@pytest.mark.parametrize(("point", "first", "later"), [("done", 26, 17), ("line", 170, 260)])
def test_killed_anywhere_it_ends_the_same(run: Path, tmp_path: Path, point: str, first: int, later: int) -> None:
    config = tmp_path / "small.yaml"
    # Where runs are kept is in the config that a run copies: the same folder, one run after the other.
    config.write_text((run.parent / "small.yaml").read_text())
    undisturbed = run.with_name("undisturbed")
    run.rename(undisturbed)
    try:
        done = tutelage("run", config, "--name", "run", *BOTH, kill_at=(point, first))
        kills = 0
        while done.code == -9:
            kills += 1
            there = (run / "run.json").exists()
            command: tuple[Any, ...] = ("resume", run) if there else ("run", config, "--name", "run", *BOTH)
            done = tutelage(*command, kill_at=(point, later))
        assert done.code == 0, done.err
        assert kills > 2 and canonical_files(run) == canonical_files(undisturbed)
    finally:
        shutil.rmtree(run, ignore_errors=True)
        undisturbed.rename(run)


def test_weights_that_a_kill_took_before_the_answers_are_made_again(run: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    # Two adapters' probe and one's gate lines, the trained one's, then in the midst of the first scaled one's.
    assert tutelage("run", config, "--name", "run", *BOTH, kill_at=("line", 40 + 60 + 40 + 20)).code == -9
    (draft,) = (p for p in (tmp_path / "run" / "round_01" / "drafts").iterdir() if p.is_dir())
    assert draft.name.endswith("-lines0.5")
    shutil.rmtree(draft.parent)
    assert tutelage("resume", tmp_path / "run").code == 0
    made, expected = (
        {k: v for k, v in canonical_files(r).items() if "config" not in k} for r in (tmp_path / "run", run)
    )
    assert made.keys() == expected.keys()
    assert all(made[k] == expected[k] for k in made if k.endswith(("lines.json", "soup.json", "rows.json")))


def test_a_bundle_verifies_and_another_choice_is_found(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert tutelage("bundle", copy, "--to", tmp_path / "good.zip").code == 0
    done = tutelage("verify", tmp_path / "good.zip")
    assert done.code == 0 and "merging" in done.out and "no difference" in done.out, done.out
    stage = copy / "round_02" / "lines"
    edit(stage / "lines.json", lambda made: made["candidates"][0].update(score=0.125))
    edit(stage / "done.json", lambda d: d["outputs"].update({"lines.json": file_hash(stage / "lines.json")}))
    assert tutelage("bundle", copy, "--to", tmp_path / "bad.zip").code == 0
    done = tutelage("verify", tmp_path / "bad.zip")
    assert done.code == 1 and "lines.json" in done.out


def test_another_choice_than_was_followed_is_not_bundled(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    stage = copy / "round_02" / "lines"

    def choose_another(made: dict[str, Any]) -> None:
        followed = next(at for at, one in enumerate(made["candidates"]) if one["chosen"])
        for at, one in enumerate(made["candidates"]):
            one["chosen"] = at == (followed + 1) % 3

    edit(stage / "lines.json", choose_another)
    edit(stage / "done.json", lambda d: d["outputs"].update({"lines.json": file_hash(stage / "lines.json")}))
    done = tutelage("bundle", copy, "--to", tmp_path / "bad.zip")
    assert done.code == 2 and "Somebody edited them" in done.err, done.err


@pytest.mark.parametrize(
    "settings", [("training.lines=null", "training.soup=false"), ("training.lines=[1, 0.25]",), ("seed=5",)]
)
def test_a_fork_keeps_the_rounds_it_takes_over_and_merges_with_them_as_it_is_told(
    run: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    sets = [word for setting in settings for word in ("--set", setting)]
    done = tutelage("fork", run, "--round", "2", "--name", f"fork{len(settings)}{settings[0][9:11]}", *sets)
    assert done.code == 0, done.err
    fork = run.with_name(f"fork{len(settings)}{settings[0][9:11]}")
    for stage in ("lines/lines.json", "soup/soup.json", "merge/adapter.json"):
        assert (fork / "round_02" / stage).read_bytes() == (run / "round_02" / stage).read_bytes()
    assert (fork / "round_03" / "lines").exists() == ("training.lines=null" not in settings)
    assert "probe answers of run-r0" not in done.err, "what the shared rounds' adapters answered is there"
    assert tutelage("bundle", fork, "--to", tmp_path / "fork.zip").code == 0
    done = tutelage("verify", tmp_path / "fork.zip")
    assert done.code == 0, done.out


def test_a_fork_may_begin_to_merge(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path)
    done = tutelage("fork", run, "--round", "1", "--name", "other", *BOTH[2:])
    assert done.code == 0, done.err
    other = tmp_path / "other"
    assert not (other / "round_01" / "lines").exists()
    lines, soup = choices(other, 2)
    assert len(lines.candidates) == 3 and soup is not None and [s.round for s in soup.steps] == [1]


def test_a_soup_trains_on_and_is_exported_with_what_taught_it(tmp_path: Path) -> None:
    """Each round goes on from the last adapter; the second is given a tiny model's weights, as `finished_run` does."""
    run = make_fake_run(tmp_path, "--set", "training.lines=[1, 0]", "--set", "training.soup=true")
    stage = run / "round_02" / "merge"
    edit(stage / "adapter.json", lambda a: a["merged"].update(rank=4))
    start = read_json(run / "round_02" / "train" / "done.json")["inputs"]["start"]
    assert start == read_json(run / "round_01" / "merge" / "adapter.json")["name"]
    give_weights(run, make_tiny_model(tmp_path / "tiny-chat"))
    done = tutelage("export", run, "--json")
    assert done.code == 0, done.err
    folder, name = Path(done.last["export"]), read_json(stage / "adapter.json")["name"]
    assert done.last["adapter"] == name
    for file in (stage / name).iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    card = (folder / "README.md").read_text().replace("\\", "")
    assert "after training it became" in card and "scaled with depth from a = 0" in card
    assert "--max-lora-rank 8" in card and "the rows of rounds 1, 2" in card
    (stage / name / "adapter_model.safetensors").write_bytes(b"other")
    done = tutelage("export", run, "--to", tmp_path / "again")
    assert done.code == 2 and "expected the file that the run recorded" in done.err


def test_a_tiny_model_is_scaled_averaged_and_gated(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "tiny-chat")
    config = write_config(tmp_path, engine="transformers", base=str(base))
    settings = ("training.lines=[1, 0.5]", "training.soup=true", "data.splits.probe=12", "data.splits.final=12")
    done = tutelage("run", config, "--name", "run", *(w for s in settings for w in ("--set", s)))
    assert done.code == 0, done.err
    for round_ in (1, 2):
        lines, soup = choices(tmp_path / "run", round_)
        assert [c.a for c in lines.candidates] == [1, 0.5] and (soup is None) == (round_ == 1)
    # A random model gets nothing right, so a tie: the adapter as it was trained, and any mean is as good.
    merged = read_record(tmp_path / "run" / "round_02" / "merge" / "adapter.json", Adapter).merged
    assert merged is not None and [p.round for p in merged.ingredients] == [2, 1]
    assert (merged.rank, merged.error) == (8, None) and merged.norm > 0


def test_a_bench_scales_one_arm_and_has_no_soup(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = tutelage("bench", config, "--arms", "lines", "--name", "b", "--set", "training.lines=[1, 0]")
    assert done.code == 0, done.err
    for seed in (1,):
        folder = tmp_path / "b" / "trainings" / f"lines-{seed}" / "round_01"
        made = read_record(folder / "merge" / "adapter.json", Adapter)
        assert made.merged is not None and made.merged.ingredients[0].a == 0
        assert (tmp_path / "b" / "answers" / made.name / "final" / "done.json").exists()
        assert not (folder / "drafts").exists()
    assert not list((tmp_path / "b" / "trainings" / "uniform-1").rglob("lines"))
    assert tutelage("bench", config, "--arms", "lines", "--name", "b", "--set", "training.lines=[1, 0]").code == 0
    done = tutelage("bench", config, "--arms", "lines", "--name", "c", "--set", "training.soup=true")
    assert done.code == 2 and "training.soup" in done.err and "benchmarks/merging.py" in done.err


def vllm(*settings: str) -> Config:
    quickstart = Path(__file__).parents[1] / "runs/configs/quickstart.yaml"
    return load_config(quickstart, ["training.rank=16", "training.start=base", *settings])


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        (["student.engine=transformers"], None),
        (["student.engine=vllm"], 16),
        (["student.engine=vllm", "student.vllm.max_lora_rank=40"], 64),
        (["student.engine=vllm", "student.vllm.max_lora_rank=8"], 16),
        (["student.engine=vllm", "student.vllm.adapters=merged"], None),
        (["student.engine=transformers", "training.start=accepted"], 16),
        (["student.engine=vllm", "student.vllm.max_lora_rank=64", "training.start=accepted"], 16),
    ],
)
def test_a_merged_adapter_has_no_higher_rank_than_who_takes_it(settings: list[str], limit: int | None) -> None:
    assert rank_limit(vllm(*settings)) == limit
    assert json.loads(vllm(*settings).model_dump_json())["training"]["soup"] is False
