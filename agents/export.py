"""Exports a finished run: the accepted adapter, what it was taught, and the evidence, in files that others read.

Everything is written into a folder of another name, which is renamed when it is complete. The same run gives the same
bytes (a merged model: on the same kind of CPU). Nothing is decided here.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from agents.accepted import ADAPTER_FILES, Accepted, open_accepted
from agents.inspect_log import require_inspect, write_inspect_logs
from curriculum.errors import UserError
from curriculum.lm_eval_task import agrees, make_task
from curriculum.model_card import Card, render_card
from curriculum.records import Example, Grade, SkillLabel, StudentAnswer
from curriculum.report_merging import ingredient_words
from curriculum.round_records import DroppedRow, TrainingRow
from curriculum.rundir import file_hash, read_json, read_records
from student.base_model import MODEL_FILES, base_hash, resolve_base
from student.chat_format import prompt_messages
from student.subprocess_job import run_worker
from student.vllm_server import RANKS

CARD = "README.md"
SUMS = "SHA256SUMS"
CROSS_CHECK = "lm_eval"
MERGED = "merged"
TRAINING_SET = "training_set"
MERGED_USAGE = """\
# HERE: this folder
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(HERE)
model = AutoModelForCausalLM.from_pretrained(HERE)
# or: vllm serve HERE"""
GOLD_IN_LOGS = (
    "The logs in inspect/ (inspect view --log-dir inspect) hold the final items with their gold answers: leave the "
    "folder out where the items have to stay unseen."
)


def export_run(
    path: Path, to: Path | None, merged: bool, say: Callable[[str], None], inspect: bool = False
) -> tuple[Path, Accepted]:
    """Writes the export into `to`, or beside the run; returns where it is and what was exported.

    Raises:
        RunDirError: no finished run with an accepted adapter, or its files are not those it recorded.
        UserError: the target exists, Inspect's library is missing, or the base to merge into cannot be had or is not
            the one trained on.
    """
    target = path.resolve().with_name(f"{path.resolve().name}-export") if to is None else to
    _check_target(path, target)
    if inspect:
        require_inspect()
    accepted = open_accepted(path)
    with _new_folder(target) as draft:
        for name in ADAPTER_FILES:
            shutil.copyfile(accepted.folder / name, draft / name)
        say(f"training set: {_write_training_set(accepted, draft / TRAINING_SET)} rows")
        card = _card(accepted, _write_task(accepted, draft / CROSS_CHECK))
        _write_config(accepted, draft / "config.yaml")
        if inspect:
            write_inspect_logs(accepted, draft / "inspect")
        if merged:
            say("merging the adapter into its base")
            of_merged = card._replace(
                hashes={**_write_merged(accepted, draft / MERGED), "base": accepted.adapter.base_hash},
                usage=MERGED_USAGE,
                merged_dtype=accepted.config.student.dtype,
            )
            (draft / MERGED / CARD).write_text(render_card(of_merged), encoding="utf-8")
        shown = card._replace(gold_words=GOLD_IN_LOGS) if inspect else card
        (draft / CARD).write_text(render_card(shown), encoding="utf-8")
        files = sorted(p for p in draft.rglob("*") if p.is_file())
        sums = "".join(f"{file_hash(p)}  {p.relative_to(draft).as_posix()}\n" for p in files)
        (draft / SUMS).write_text(sums)
    return target, accepted


def _write_config(accepted: Accepted, path: Path) -> None:
    """The config that makes such a run, without operational keys: nobody needs the addresses that were asked."""
    shipped = {"rounds": accepted.config.rounds, **accepted.identity}
    path.write_text(yaml.safe_dump(shipped, sort_keys=False), encoding="utf-8")


def _check_target(run: Path, target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise UserError(f"{target}: expected a folder that does not exist yet. Remove it, or give another --to")
    if run.resolve() in target.resolve().parents:
        raise UserError(
            f"{target}: expected a folder outside the run's, whose files nothing may change. Give another --to"
        )


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that gets its name when it is complete: a kill leaves no half an export."""
    draft = target.with_name(f".{target.name}.tmp")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_training_set(accepted: Accepted, folder: Path) -> int:
    """Writes the rows that taught the adapter as a folder of `datasets`; returns how many."""
    import datasets

    text, turns = datasets.Value("string"), [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    whole = datasets.Value("int64")
    features = datasets.Features(
        {"taught_in_round": whole, "id": text, "example_id": text, "origin": text, "source": text, "first_round": whole}
        | {"skill": text, "skills": [text], "difficulty": whole, "layer": text, "repeat": whole}
        | {"weight": datasets.Value("float64"), "question": text, "history": turns, "target": text}
        | {"other_targets": [text], "messages": turns}
    )
    rows = list(_rows(accepted))
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_list(rows, features=features)
    # Its own would be drawn anew each time.
    named = datasets.Dataset(table.data, fingerprint=accepted.adapter.training_set_hash[:16])
    named.save_to_disk(folder)
    return len(rows)


def _rows(accepted: Accepted) -> Iterator[dict[str, Any]]:
    for round_ in accepted.rounds:
        dropped = read_records(accepted.run.round_stage(round_, "train") / "dropped.jsonl", DroppedRow)
        too_long = {(d.example_id, d.skill, d.origin) for d in dropped}
        for row in read_records(accepted.run.round_stage(round_, "build") / "training_set.jsonl", TrainingRow):
            if (row.example_id, row.skill, row.origin) in too_long:
                continue
            plain = row.model_dump(mode="json", exclude={"schema_version", "round", "solution"})
            asked = prompt_messages(accepted.prompt.text, row.history, row.question)
            whole = plain | {
                "taught_in_round": round_,
                "first_round": row.round,
                "other_targets": list(row.other_targets),
                "messages": [*(m.model_dump() for m in asked), {"role": "assistant", "content": row.target}],
            }
            # Arrow holds no lone surrogates, which an LLM's reply may.
            yield json.loads(json.dumps(whole, ensure_ascii=False).encode("utf-8", "replace"))


class CrossCheck(NamedTuple):
    """How the final split can be checked by another tool: in words, and the command."""

    words: str
    command: str


def _write_task(accepted: Accepted, folder: Path) -> CrossCheck:
    """Writes the final split as a task for lm-eval; returns how far the two tools agree, and the command."""
    run, config = accepted.run, accepted.config
    final = {e.id: e for e in read_records(run.stage_path("prepare") / "examples.jsonl", Example) if e.split == "final"}
    labels = {r.example_id: r.skills for r in read_records(run.stage_path("label") / "labels.jsonl", SkillLabel)}
    answers = read_records(accepted.answers / "answers.jsonl", StudentAnswer)
    asked = [final[a.example_id] for a in answers]
    task = make_task(accepted.report.run, asked, labels, accepted.prompt.text, config.student.sampling(config.seed))
    if not task.items:
        return CrossCheck("Every final item has earlier chat turns, which no task file of lm-eval can ask.", "")
    folder.mkdir()
    for name, text in task.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    same, compared = agrees(final, answers, read_records(accepted.answers / "grades.jsonl", Grade))
    left = f" {task.left_out} items with earlier chat turns are left out." if task.left_out else ""
    return CrossCheck(
        f"{CROSS_CHECK}/ is a cross-check by lm-evaluation-harness: {task.items} final items, read by the strict "
        f"extraction, right by lm-eval's own exact match.{left} Of {compared} recorded answers of the adapter that "
        f"rule and our strict extraction say the same of {same}. Its items have their gold answers: leave the folder "
        "out where the final split has to stay unseen.",
        f"# in HERE/{CROSS_CHECK}: lm_eval run --include_path . --tasks {task.name} --model hf "
        "--model_args pretrained=BASE,peft=.. --apply_chat_template",
    )


def _write_merged(accepted: Accepted, folder: Path) -> Mapping[str, str]:
    """Writes the base with the adapter merged into it, in the run's number format; returns the hashes of its weights.

    Raises:
        UserError: the base cannot be had, or is not the one the adapter was trained on.
    """
    config = accepted.config.student
    base = resolve_base(config.base, config.revision)
    if (got := base_hash(base)) != accepted.adapter.base_hash:
        raise UserError(
            f"{base}: expected the base that the adapter was trained on (hash {accepted.adapter.base_hash}), got "
            f"another (hash {got}). Put it back, or export without --merged"
        )
    job = {"do": "merge", "base": str(base), "adapter": str(accepted.folder.absolute()), "threads": config.threads}
    job |= {"folder": str(folder.absolute()), "dtype": config.dtype}
    with tempfile.TemporaryDirectory() as logs:
        (event,) = run_worker("student.served_worker", job, threads=config.threads, log=Path(logs) / "merge.log")
    for file in folder.iterdir():
        if file.suffix not in MODEL_FILES:  # whatever else lay in the base's folder
            file.unlink()
        else:  # safetensors makes files only their owner can read
            file.chmod(0o644)
    return dict(event["files"])


def _card(accepted: Accepted, cross_check: CrossCheck) -> Card:
    report, adapter, config = accepted.report, accepted.adapter, accepted.config
    rounds = ", ".join(map(str, accepted.rounds))
    of = f"{adapter.rows} in round {adapter.round}"
    if adapter.merged is not None:
        of += f"; {ingredient_words(adapter.merged)}"
        of += f" The training set has the rows of rounds {rounds}" if len(accepted.rounds) > 1 else ""
    elif len(accepted.rounds) > 1:
        of += f"; it went on from the adapters before it, of rounds {rounds}, whose rows are in the training set, too"
    training_sets = {
        f"rows of round {r} (training_set.jsonl)": file_hash(
            accepted.run.round_stage(r, "build") / "training_set.jsonl"
        )
        for r in accepted.rounds
    }
    return Card(
        report=report,
        adapter=adapter,
        base=accepted.base,
        system_prompt=accepted.prompt.text,
        row_words=of,
        usage=_usage(adapter.merged.rank if adapter.merged else config.training.rank, cross_check.command),
        reproduction="tutelage run config.yaml",
        reproduction_words=_reproduction_words(accepted),
        hashes={**{name: adapter.files[name] for name in ADAPTER_FILES}, **training_sets, "base": adapter.base_hash},
        cross_check=cross_check.words,
    )


def _usage(rank: int, cross_check: str) -> str:
    room = min(r for r in RANKS if r >= rank)
    return (
        "# BASE: where the base named above is on your machine; HERE: this folder\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(BASE)\n"
        "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), HERE)\n"
        f"# or: vllm serve BASE --enable-lora --max-lora-rank {room} --lora-modules taught=HERE\n{cross_check}"
    ).strip()


def _reproduction_words(accepted: Accepted) -> str:
    words = (
        f"With Tutelage {accepted.report.tutelage_version}. config.yaml has the settings that determine the run; "
        "addresses, keys and limits are left out. On the same kind of CPU, with as many threads and the same versions "
        "of the libraries, an offline teacher's run gives the same bytes; elsewhere roundings differ."
    )
    facts = read_json(accepted.run.path / "run.json")
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    if facts.get("lineage"):
        words += " The run was forked, as the notes say: this config alone makes another run."
    if accepted.config.teacher.kind != "offline":
        words += " A live teacher will write other rows."
    return f"{words} Python {facts['python']}, {libraries}."
