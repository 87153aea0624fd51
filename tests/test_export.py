"""Exports: adapter, merged model, training set, card and cross-check load where others load them, whole and honest."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Finished, tutelage
from finished_run import edit, give_weights, make_fake_run
from tiny_model import make_tiny_model

from agents.export import export_run
from curriculum.config import load_config
from curriculum.errors import UserError
from curriculum.records import Grade, StudentAnswer
from curriculum.rundir import file_hash, read_records

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fake_run(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chat")
    (folder / "pytorch_model.bin").write_text("pickled")
    return folder


@pytest.fixture(scope="module")
def run(fake: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model; its accepted adapter, of round 2, went on from round 1's."""
    made = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(fake, made)
    give_weights(made, base)
    return made


@pytest.fixture(scope="module")
def exported(run: Path) -> tuple[Path, Finished]:
    done = tutelage("export", run, "--merged", "--json")
    assert done.code == 0, done.err
    return Path(done.last["export"]), done


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([[5, 6, 7, 8, 9]])).logits


def test_adapter_and_merged_model_load_and_compute_the_same(exported: tuple[Path, Finished], base: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = exported
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = logits(plain)
    taught = logits(PeftModel.from_pretrained(plain, folder))
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", use_safetensors=True)
    assert merged.dtype == torch.float32
    assert torch.allclose(logits(merged), taught, atol=1e-4) and not torch.allclose(before, taught, atol=0.1)
    messages = [{"role": "user", "content": "What is 12 plus 7?"}]
    ours, theirs = (
        AutoTokenizer.from_pretrained(f).apply_chat_template(messages, tokenize=False)
        for f in (base, folder / "merged")
    )
    assert ours == theirs
    assert not list(folder.rglob("*.bin"))


def test_the_adapter_is_the_one_the_run_recorded_and_every_file_is_summed(
    exported: tuple[Path, Finished], run: Path
) -> None:
    folder, done = exported
    stage = run / "round_02" / "train"
    assert done.last["adapter"] == json.loads((stage / "adapter.json").read_text())["name"]
    for file in (stage / done.last["adapter"]).iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    summed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert summed == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_the_training_set_has_every_row_with_where_it_came_from(exported: tuple[Path, Finished], run: Path) -> None:
    from datasets import load_from_disk

    folder, _ = exported
    rows = load_from_disk(folder / "training_set").to_list()
    recorded = [
        json.loads(line) | {"taught_in_round": round_}
        for round_ in (1, 2)
        for line in (run / f"round_0{round_}" / "build" / "training_set.jsonl").read_text().splitlines()
    ]
    same = ("taught_in_round", "id", "origin", "source", "skill", "skills", "layer", "weight", "question", "target")
    assert [[row[key] for key in same] for row in rows] == [[row[key] for key in same] for row in recorded]
    assert {row["origin"] for row in rows} == {"pool", "written", "replay"}
    system = yaml.safe_load((Path(__file__).parents[1] / "prompts" / "student_answer.yaml").read_text())["text"]
    for row in rows:
        assert [m["content"] for m in row["messages"]] == [system, row["question"], row["target"]]


def test_a_text_that_arrow_cannot_hold_is_exported_without_what_it_cannot(run: Path, tmp_path: Path) -> None:
    from datasets import load_from_disk

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    rows = copy / "round_02" / "build" / "training_set.jsonl"
    first, rest = rows.read_bytes().split(b"\n", 1)
    rows.write_bytes(json.dumps(json.loads(first) | {"question": "a\ud800b"}).encode() + b"\n" + rest)
    edit(rows.with_name("done.json"), lambda done: done["outputs"].update({rows.name: file_hash(rows)}))
    folder, _ = export_run(copy, None, False, lambda _: None)
    taught = load_from_disk(folder / "training_set").filter(lambda row: row["taught_in_round"] == 2)
    assert taught[0]["question"] == "a?b"


def test_the_card_is_the_hubs_and_has_the_evidence(exported: tuple[Path, Finished], run: Path, base: Path) -> None:
    from huggingface_hub import ModelCard

    folder, done = exported
    report = json.loads((run / "report.json").read_text())
    card, merged = ModelCard.load(folder / "README.md"), ModelCard.load(folder / "merged" / "README.md")
    assert (card.data.library_name, card.data.base_model_relation) == ("peft", "adapter")
    assert (merged.data.library_name, merged.data.base_model_relation) == ("transformers", "finetune")
    assert card.data.base_model is None  # a folder of this machine is no model of the Hub
    lenient, strict = card.data.eval_results
    assert lenient.metric_value == round(100 * report["final"]["adapter"]["rate"], 2)
    assert strict.metric_value == round(100 * report["final"]["strict"]["adapter"]["rate"], 2)
    text, identity = card.text.replace("\\", ""), load_config(run / "config.yaml").identity_hash
    adapter = json.loads((run / "round_02" / "train" / "adapter.json").read_text())
    for told in (*adapter["files"].values(), adapter["base_hash"], identity, "tiny-chat, a local folder"):
        assert told in text
    for rate in (report["final"][arm] for arm in ("base", "base_few_shot", "adapter")):
        assert f"({rate['correct']}/{rate['n']}, {100 * rate['low']:.1f}–{100 * rate['high']:.1f})" in text
    for skill in report["final"]["skills"]:
        assert f"| {skill['skill']} | " in text
    for round_ in report["rounds"]:
        assert round_["reason"] in text
    assert "whose rows are in the training set, too" in text and "in float32" in merged.text
    assert str(base) not in text
    assert "look before you publish" in done.err


def test_the_config_makes_the_same_run(exported: tuple[Path, Finished], run: Path) -> None:
    folder, _ = exported
    ours, theirs = load_config(folder / "config.yaml"), load_config(run / "config.yaml")
    assert (ours.identity_hash, ours.rounds) == (theirs.identity_hash, theirs.rounds)


def test_another_process_exports_the_same_bytes(exported: tuple[Path, Finished], run: Path, tmp_path: Path) -> None:
    folder, _ = exported
    again, _ = export_run(run, tmp_path / "new" / "again", False, lambda _: None)
    files = {p.relative_to(again) for p in again.rglob("*") if p.is_file()} - {Path("SHA256SUMS")}
    assert len(files) == 9
    assert all((again / file).read_bytes() == (folder / file).read_bytes() for file in files)


def adapter_file(run: Path) -> Path:
    (path,) = run.glob("round_02/train/*/adapter_model.safetensors")
    return path


def other_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def no_adapter(run: Path) -> None:
    edit(run / "final" / "final.json", lambda final: final["final"].update(adapter_name="base"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "final" / "done.json").unlink(), "expected a finished run"),
        (no_adapter, "accepted none: the student is still the base"),
        (lambda run: other_bytes(adapter_file(run)), r"expected the file that the run recorded \(SHA-256 "),
        (lambda run: adapter_file(run).unlink(), "got none. It was changed after the training"),
        (lambda run: (adapter_file(run).parent / "more.bin").write_text("x"), "expected the files that its done.json"),
        (lambda run: other_bytes(run / "round_01/build/training_set.jsonl"), "round_01/build"),
        (lambda run: edit(run / "round_02/train/adapter.json", lambda a: a.update(rows=7)), "round_02/train: expected"),
        (lambda run: (run / "run.json").unlink(), "expected a run's folder with a run.json"),
    ],
)
def test_what_is_not_as_the_run_left_it_is_not_exported(
    run: Path, tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    change(copy)
    with pytest.raises(UserError, match=message):
        export_run(copy, None, False, lambda _: None)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_target_that_exists_or_is_the_runs_own_is_refused(run: Path, fake: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    done = tutelage("export", run, "--to", tmp_path / "there", "--json")
    assert done.code == 2 and "expected a folder that does not exist yet" in done.last["error"]
    with pytest.raises(UserError, match="outside the run's"):
        export_run(run, run / "final" / "export", False, lambda _: None)
    with pytest.raises(UserError, match="FAKE student"):
        export_run(fake, tmp_path / "new", False, lambda _: None)


def test_another_base_is_not_merged_into(run: Path, base: Path, tmp_path: Path) -> None:
    config = base / "generation_config.json"
    before = config.read_text()
    try:
        edit(config, lambda c: c.update(top_k=3))
        with pytest.raises(UserError, match="expected the base that the adapter was trained on"):
            export_run(run, tmp_path / "merged", True, lambda _: None)
    finally:
        config.write_text(before)
    assert not list(tmp_path.iterdir())


def test_lm_eval_says_of_the_recorded_answers_what_the_strict_extraction_says(
    exported: tuple[Path, Finished], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'tutelage[lm-eval]'")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    folder, done = exported
    answers = {}
    for line in (run / "answers" / done.last["adapter"] / "final" / "answers.jsonl").read_text().splitlines():
        answers[json.loads(line)["example_id"]] = json.loads(line)["text"]

    class Recorded(LM):
        """Says what the adapter said when it was examined."""

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [answers[request.doc["id"]] for request in requests]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise AssertionError("the task only generates")

        loglikelihood_rolling = loglikelihood

    monkeypatch.chdir(folder / "lm_eval")
    task = "tutelage_run_final"
    made = lm_eval.simple_evaluate(model=Recorded(), tasks=[task], task_manager=TaskManager(include_path="."))
    grades = read_records(run / "answers" / done.last["adapter"] / "final" / "grades.jsonl", Grade)
    right = sum(g.strict_verdict == "correct" for g in grades)
    assert right not in (0, len(grades))
    assert made["results"][task]["exact_match,strict"] == pytest.approx(right / len(grades))
    # `#` begins what the prompt is made of: the system prompt, then the question.
    prompt = made["samples"][task][0]["arguments"][0][0]
    doc = made["samples"][task][0]["doc"]
    assert prompt.startswith(doc["system"]) and prompt.rstrip().endswith(doc["question"])


def test_inspect_reads_its_logs_as_the_run_recorded_them(run: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="Inspect is not installed: pip install 'tutelage[inspect]'")
    folder, accepted = export_run(run, tmp_path / "once", False, lambda _: None, inspect=True)
    report = json.loads((run / "report.json").read_text())["final"]
    listed = log.list_eval_logs(str(folder / "inspect"))  # as the viewer lists them
    logs = {made.eval.model: made for made in map(log.read_eval_log, listed)}
    assert len(listed) == 2
    for name, adapter in (("base", "base"), ("adapter", accepted.adapter.name)):
        made = logs[f"tutelage/{adapter}"]
        lenient, strict = made.results.scores
        assert made.status == "success"
        assert lenient.metrics["accuracy"].value == report[name]["rate"]
        assert strict.metrics["high95"].value == report["strict"][name]["high"]
        answers = read_records(run / "answers" / adapter / "final" / "answers.jsonl", StudentAnswer)
        assert [(s.id, s.output.completion) for s in made.samples] == [(a.example_id, a.text) for a in answers]
        assert sum(s.scores["lenient"].value == "C" for s in made.samples) == report[name]["correct"]
        assert {s.metadata["skills"][0] for s in made.samples} == {s["skill"] for s in report["skills"]}
        usage = made.stats.model_usage[made.eval.model]
        assert usage.output_tokens == sum(a.completion_tokens for a in answers)
        assert made.stats.started_at <= made.stats.completed_at
    assert "hold the final items with their gold answers" in (folder / "README.md").read_text()
    again, _ = export_run(run, tmp_path / "again", False, lambda _: None, inspect=True)
    assert (again / "SHA256SUMS").read_text() == (folder / "SHA256SUMS").read_text()


def test_logs_for_inspect_need_its_library(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.inspect_log.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'tutelage\[inspect\]'"):
        export_run(run, tmp_path / "new", False, lambda _: None, inspect=True)
    assert not list(tmp_path.iterdir())
