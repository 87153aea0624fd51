"""What a person can mend about a run: one clear message, exit code 2, nothing half-written."""

import ctypes
import json
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import HERE, canonical_files, limited, tutelage, write_config
from samples import training_row
from tiny_model import TEMPLATE, make_tiny_model

from agents.forecast import forecast
from agents.session import check_gate, create_run
from curriculum.config import load_config
from curriculum.errors import ConfigError, RunDirError, UserError
from curriculum.records import QuarantinedRow
from curriculum.rundir import (
    DONE,
    RunDir,
    append_line,
    open_journal,
    read_json,
    read_records,
    write_atomic,
    write_json,
)
from student.base_model import find_base, linear_sizes, resolve_base
from student.interface import TrainingSettings
from student.local import LocalStudent

NO_PREFIX = TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
NO_END = TEMPLATE.replace("<|im_end|>", "")


# A newer version.


@pytest.mark.parametrize("version", [2, 0, "1", True, None])
def test_another_schema_version_is_named_and_never_read(tmp_path: Path, version: object) -> None:
    write_json(tmp_path / "x.json", {"schema_version": version})
    line = {"schema_version": version, "source": "s", "reason": "r", "text": "t"}
    (tmp_path / "x.jsonl").write_text(json.dumps({**line, "schema_version": 1}) + "\n" + json.dumps(line) + "\n")
    for read in (lambda: read_json(tmp_path / "x.json"), lambda: read_records(tmp_path / "x.jsonl", QuarantinedRow)):
        with pytest.raises(RunDirError, match=r"x\.jsonl?(:2)?: expected schema_version 1, got ") as caught:
            read()
        assert ("newer Tutelage" in str(caught.value)) == (version == 2)


def test_a_stage_of_a_newer_version_is_not_made_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    stage = run.stage_path("stage")
    run.run_stage(stage, {"a": 1}, lambda folder: {})
    write_json(stage / DONE, read_json(stage / DONE) | {"schema_version": 2, "inputs_hash": "other"})
    with pytest.raises(RunDirError, match="newer Tutelage"):
        run.run_stage(stage, {"a": 1}, lambda folder: pytest.fail("ran"))
    assert (stage / DONE).exists()


@pytest.mark.parametrize("file", ["run.json", "prepare/done.json", "round_00/gate/done.json"])
@pytest.mark.real
def test_the_command_line_says_so(tmp_path: Path, file: str) -> None:
    assert tutelage("run", write_config(tmp_path), "--name", "run", "--set", "rounds=1").code == 0
    path = tmp_path / "run" / file
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2').replace(
        '"schema_version":1', '"schema_version":2'
    ))  # fmt: skip
    done = tutelage("resume", tmp_path / "run")
    assert done.code == 2 and "Traceback" not in done.err
    assert file in done.err or "prepare" in file


# The disk.


def test_a_full_disk_is_said_and_leaves_no_part_of_a_line() -> None:
    with pytest.raises(
        RunDirError, match=r"/dev/full: expected to read and write it, got: No space left.*tutelage resume"
    ):
        append_line(Path("/dev/full"), {"a": 1})


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from curriculum import rundir\n"
        "from curriculum.errors import RunDirError\n"
        "folder = Path(sys.argv[1]); rundir.write_atomic(folder / 'x', 'old')\n"
        "rundir.append_line(folder / 'j', 'a' * 50)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "for write in (lambda: rundir.write_atomic(folder / 'x', 'y' * 9000), "
        "lambda: rundir.append_line(folder / 'j', 'b' * 90)):\n"
        "    try: write()\n"
        "    except RunDirError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=HERE.parent)
    assert done.stdout.count("File too large") == 2, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["j", "x"]
    assert (tmp_path / "x").read_text() == "old"
    assert (tmp_path / "j").read_text() == json.dumps("a" * 50) + "\n"


@pytest.mark.real
def test_a_run_whose_disk_fills_up_goes_on_later_to_the_same_files(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = limited(resource.RLIMIT_FSIZE, 20_000, "run", config, "--name", "run")
    assert done.returncode == 2 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"], "nothing was finished, so nothing is left"

    assert tutelage("run", config, "--name", "run").code == 0
    expected = canonical_files(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "undisturbed")
    assert tutelage("run", config, "--name", "run", kill_at=("done", 4)).code == -9
    done = limited(resource.RLIMIT_FSIZE, 9_000, "resume", tmp_path / "run")
    assert done.returncode == 2 and "tutelage resume" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob(".*.tmp"))
    assert tutelage("resume", tmp_path / "run").code == 0
    assert canonical_files(tmp_path / "run") == expected


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = load_config(write_config(tmp_path), [f"runs_dir={tmp_path / 'file'}"])
    with pytest.raises(RunDirError, match=r"Not a directory.*Set runs_dir"):
        create_run(config, tmp_path / "small.yaml", "run")
    with pytest.raises(RunDirError, match="expected to read and write it"):
        write_atomic(Path("/proc/self/x"), "text")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", ".", "..", ".x", "-x", "a\nb", "\x1b[2J", "\udcff", "x" * 61, "x" * 300, "trackers"]
)
def test_a_run_gets_a_plain_name_or_none(tmp_path: Path, name: str) -> None:
    config = load_config(write_config(tmp_path))
    with pytest.raises(RunDirError, match="expected a plain folder name") as caught:
        create_run(config, tmp_path / "small.yaml", name)
    assert str(caught.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.real
@pytest.mark.parametrize("command", ["resume", "report", "run"])
def test_a_path_too_long_is_one_message(command: str) -> None:
    done = tutelage(command, "x" * 300)
    assert done.code == 2 and "File name too long" in done.err and "Traceback" not in done.err


def test_a_lock_that_cannot_be_held_is_said(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(RunDirError, match=r"\.lock: expected to read and write it, got: Is a directory"),
        RunDir(tmp_path),
    ):
        pass
    (tmp_path / ".lock").rmdir()
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirError, match=r"\.lock: expected to read and write it"), RunDir(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def obey_rights() -> None:
    """Takes root's leave to pass over the rights of files (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) from what follows."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused to others, who lack it anyway


@pytest.mark.real
@pytest.mark.parametrize(
    ("path", "rights", "expected"),
    [
        (".", 0o555, ".lock: expected to read and write it, got: Permission denied"),
        (".lock", 0o444, ".lock: expected to read and write it, got: Permission denied"),
        ("prepare", 0o000, "prepare/done.json: expected to read and write it, got: Permission denied"),
        ("answers", 0o555, "expected to read and write it, got: Permission denied"),
    ],
)
def test_a_run_that_may_not_be_written_is_one_message_and_goes_on_later(
    tmp_path: Path, path: str, rights: int, expected: str
) -> None:
    run = tmp_path / "run"
    assert tutelage("run", write_config(tmp_path), "--name", "run", kill_at=("done", 6)).code == -9
    if rights == 0o444:
        (run / path).touch()
    else:
        (run / ".lock").unlink(missing_ok=True)
    before = (run / path).stat().st_mode
    (run / path).chmod(rights)
    command = [sys.executable, "-m", "agents.cli", "resume", str(run)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, preexec_fn=obey_rights)
    finally:
        (run / path).chmod(before)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert expected in done.stderr and "go on with: tutelage resume" in done.stderr
    assert tutelage("resume", run).code == 0


def test_a_finished_stage_keeps_no_draft(tmp_path: Path) -> None:
    run, stage = RunDir(tmp_path), tmp_path / "stage"

    def killed(folder: Path) -> dict[str, int]:
        (folder / ".old.json.tmp").write_text("half")
        append_line(folder / "x.journal", {"schema_version": 1})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run_stage(stage, {"a": 1}, killed)
    run.run_stage(stage, {"a": 1}, lambda folder: {})
    assert sorted(p.name for p in stage.iterdir()) == ["done.json", "started.json", "timing.json"]
    assert open_journal(stage / "x.journal", QuarantinedRow) == []


# Too few items.


def test_a_gate_that_could_accept_nothing_is_refused_with_the_least_size(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    with pytest.raises(ConfigError, match="at least 6 items"):
        check_gate(load_config(path, ["data.splits.gate=4"]))
    check_gate(load_config(path, ["data.splits.gate=6"]))
    with pytest.raises(ConfigError, match=r"data\.splits\.gate"):
        create_run(load_config(path, ["data.splits.gate=4"]), path, "run")
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.real
def test_missing_data_and_too_few_items_leave_nothing(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    tree = yaml.safe_load(path.read_text())
    tree["plan"]["write_share"] = 0
    tree["data"] = {"kind": "file", "path": str(tmp_path / "no.jsonl"), "format": "examples", "grader": "exact"}
    tree["data"]["splits"] = {"probe": 10, "gate": 10, "final": 10}
    path.write_text(yaml.safe_dump(tree))
    done = tutelage("run", path)
    assert done.code == 2 and "no.jsonl" in done.err and "Traceback" not in done.err
    rows = [json.dumps({"question": f"What is number {n}?", "gold": str(n)}) for n in range(12)]
    (tmp_path / "no.jsonl").write_text("\n".join(rows))
    done = tutelage("run", path)
    assert done.code == 2 and "data.splits" in done.err and "Traceback" not in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["no.jsonl", "small.yaml"]


# The base model.


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "tiny")


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda f: cut(f / "model.safetensors"), "expected .*model.safetensors whole, got"),
        (lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs"), "no safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "got 0 bytes"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'),
            "model-2.safetensors whole, got 0 bytes",
        ),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled weights can run code"),
        (
            lambda f: edit_json(f / "config.json", auto_map={"AutoConfig": "x.Y"}, model_type="own"),
            "needs code of its own",
        ),
        (lambda f: (f / "config.json").write_text("{"), "expected JSON in .*config.json"),
    ],
)
def test_a_spoiled_base_is_refused_by_its_files(base: Path, spoil: object, expected: str) -> None:
    spoil(base)  # type: ignore[operator]
    with pytest.raises(UserError, match=f"(?s){expected}"):
        resolve_base(str(base))


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "no/such/folder", "x" * 300, ""])
def test_a_name_that_is_no_model_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((UserError, OSError), match=r"student\.base|File name too long"):
        resolve_base(name)


def test_a_known_kind_may_carry_code_that_is_not_run(base: Path) -> None:
    edit_json(base / "config.json", auto_map={"AutoConfig": "x.Y"})
    assert resolve_base(str(base)) == base


def test_weights_are_never_unpickled(base: Path) -> None:
    with (base / "training_args.bin").open("wb") as file:
        pickle.dump({"a": 1}, file)
    assert resolve_base(str(base)) == base, "other pickled files beside safetensors are left alone"


@pytest.mark.real
@pytest.mark.parametrize(
    ("template", "expected"),
    [(NO_PREFIX, "the same with and without the answer"), (NO_END, "ends an answer with a special token")],
)
def test_a_template_that_does_not_serve_is_found_before_anything_is_answered(
    tmp_path: Path, template: str, expected: str
) -> None:
    student = local(make_tiny_model(tmp_path / "tiny", template=template), tmp_path)
    try:
        with pytest.raises(UserError, match=expected):
            student.check(tmp_path / "log")
    finally:
        student.close()


@pytest.mark.real
def test_a_base_that_transformers_cannot_read_is_a_message(base: Path) -> None:
    edit_json(base / "config.json", model_type="own")
    student = local(base, base.parent)
    try:
        with pytest.raises(UserError, match="expected a causal language model"):
            student.check(base.parent / "log")
    finally:
        student.close()


def local(base: Path, folder: Path) -> LocalStudent:
    config = load_config(write_config(folder, engine="transformers", base=str(base)))
    return LocalStudent(config.student, config.training, "Answer.")


@pytest.mark.real
def test_an_adapter_that_cannot_be_written_is_said(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    student = local(base, tmp_path)
    try:
        with pytest.raises(UserError, match=r"expected to write the adapter, got: .*Not a directory"):
            settings = TrainingSettings(1e-4, 1, 0, None)
            student.train([training_row()], settings, tmp_path / "file" / "a", tmp_path / "log", lambda p: None)
    finally:
        student.close()


# The forecast of the disk.


def test_the_forecast_knows_the_adapters_size(base: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    config = load_config(write_config(tmp_path, engine="transformers", base=str(base)))
    made = forecast(config)
    assert made.disk_bytes is not None and made.cache_bytes == 0
    # Two layers: q, o 32 × 32; k, v 16 × 32; gate, up 64 × 32; down 32 × 64.
    expected = 4 * 4 * 2 * (2 * 64 + 2 * 48 + 3 * 96)
    more = forecast(config.model_copy(update={"rounds": 3})).disk_bytes
    assert find_base(str(base)) == base
    assert 4 * 4 * sum(map(sum, linear_sizes(base))) == expected
    assert more is not None and more - made.disk_bytes > expected
    with safe_open(base / "model.safetensors", "pt") as weights:
        assert len(linear_sizes(base)) < len(list(weights.keys()))
    unknown = load_config(write_config(tmp_path, engine="transformers", base="no/such-model"))
    assert forecast(unknown).disk_bytes is None
