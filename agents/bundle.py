"""A round in one file: the records of a run up to it, enough to audit every number of it; and the audit.

The archive holds the stages that a replay of the run reaches, with their `done.json`, and a manifest of hashes. Times
and logs stay out, and weights unless they are asked for: their hashes are among the records.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib import metadata
from json import dumps, loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import Field, ValidationError

from agents.audit import AuditedRun, is_weights
from agents.replay import generated, open_recorded, planned_rounds, replay
from agents.reporting import gather
from agents.session import open_run
from curriculum.archive import read_archive, write_archive
from curriculum.audit import Audit, Findings
from curriculum.config import Config, changed_keys, flatten, load_config
from curriculum.differences import compare_values, count_numbers, safe_yaml
from curriculum.errors import BundleError, NotRecomputed, RunDirError, TutelageError
from curriculum.records import Grade, Record
from curriculum.rows import printable
from curriculum.rundir import DONE, RunDir, file_hash, finished_rounds, is_whole, read_json, read_record, read_records

BROKEN = (ValidationError, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
"""What records that were tampered with make a node raise."""
MANIFEST = "manifest.json"
CHANGES = "config_changes.jsonl"
BESIDE = ("run.json", "config.yaml", CHANGES)
"""Files of a run that belong to no stage."""

NOT_HERE = ("all_answers",)
"""Of a report: how many answers the whole run has, also of adapters that a later extension left behind."""


class Manifest(Record):
    """What a bundle is of, and the hash of every other file in it."""

    run: str
    round: int = Field(ge=0, le=99)
    final: bool = Field(description="whether the final test is in it, and `report.json` of the whole run")
    weights: bool
    tutelage: str
    files: dict[str, str] = Field(description="path → SHA-256")


class _ListedRun(RunDir):
    """A run's records in which the stages that are reached are listed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stages: dict[Path, None] = {}

    def run_stage(self, folder: Path, inputs: Mapping[str, Any], work: Callable[..., Any]) -> dict[str, Any]:
        """Notes a finished stage, and returns the update that it recorded."""
        if folder not in self.stages and not is_whole(folder):
            raise RunDirError(
                f"{folder}: expected a finished stage with the files its {DONE} names, got others. Mend it first: "
                f"tutelage resume {self.path}"
            )
        self.stages[folder] = None
        return dict(read_json(folder / DONE)["update"])


def write_bundle(path: Path, round_: int | None, to: Path | None, weights: bool) -> Path:
    """Writes the bundle of a run up to a round, the last finished one if none is given; returns its path.

    Raises:
        RunDirError: the round is not finished, a stage is damaged, records contradict each other, or the file exists.
        BundleError: there is more than a bundle may hold.
    """
    _, config = open_run(path, only_read=True)
    run = _ListedRun(path.resolve())
    last = finished_rounds(run) - 1
    if last < 0:
        raise RunDirError(f"{path}: no round has finished yet. Go on with: tutelage resume {path}")
    round_ = last if round_ is None else round_
    if round_ > last:
        raise RunDirError(f"{path}: expected one of its finished rounds (0 to {last}), got --round {round_}")
    name = read_json(run.path / "run.json")["run"]  # the folder may have another since, but adapters have this one
    target = to or run.path.with_name(f"{run.path.name}-round-{round_:02d}.zip")
    if target.exists():
        raise RunDirError(f"{target}: this file exists. Give another with --to")
    report = gather(run, config) if round_ == last else None
    final = report is not None and report.final is not None
    with open_recorded(run, config) as loop:
        try:
            replay(loop, round_, planned_rounds(run, config, _rounds_once(run), round_), final)
        except NotRecomputed as error:
            raise RunDirError(
                f"{path}: expected records that lead from one to the next, got some that ask for what was never "
                f"recorded ({error}). Somebody edited them: put the files back, or make the run again"
            ) from None
    files: dict[str, Path | bytes] = {file: run.path / file for file in BESIDE if (run.path / file).is_file()}
    for stage in run.stages:
        for file in (DONE, *read_json(stage / DONE)["outputs"]):
            if weights or not is_weights(stage, file):
                files[(stage / file).relative_to(run.path).as_posix()] = stage / file
    if report is not None:
        files["report.json"] = _document(report.model_copy(update={"run": name}))
        files |= {f"teacher/{p.name}": p for p in run.stage_path("teacher").glob("*.json*")}
    manifest = Manifest(
        run=name,
        round=round_,
        final=final,
        weights=weights,
        tutelage=metadata.version("tutelage"),
        files={file: _hash(of) for file, of in sorted(files.items())},
    )
    files[MANIFEST] = _document(manifest)
    write_archive(target, {f"{name}/{file}": of for file, of in files.items()})
    return target


def verify_bundle(path: Path) -> Audit:
    """Makes again what a bundle's records give, and compares.

    Raises:
        BundleError: it cannot be unpacked, or is no bundle.
    """
    with TemporaryDirectory(prefix="tutelage-verify-") as made:
        unpacked, scratch = Path(made) / "bundle", Path(made) / "again"
        unpacked.mkdir()
        names = read_archive(path, unpacked)
        tops = {name.split("/")[0] for name in names}
        if len(tops) != 1 or not all("/" in name for name in names):
            raise BundleError(f"{path}: expected the files of one run, got {len(tops)} folders")
        folder = unpacked / tops.pop()
        try:
            manifest = read_record(folder / MANIFEST, Manifest)
            for file in folder.rglob("*.yaml"):
                safe_yaml(file.read_text(encoding="utf-8"))
            config = load_config(folder / "config.yaml")
            identity = flatten(read_json(folder / "run.json")["identity"])
        except (TutelageError, *BROKEN) as error:
            raise BundleError(f"{path}: expected a bundle, got: {printable(str(error))}") from None
        found = Findings()
        _check_manifest(folder, manifest, [name.partition("/")[2] for name in names], found)
        for key, (began, now) in changed_keys(identity, config.identity()).items():
            if key in identity:
                found.differ("config.yaml", key, began, now)
        _make_again(folder, scratch, config, manifest, found)
        return found.audit(manifest.run, manifest.round)


def _check_manifest(folder: Path, manifest: Manifest, names: list[str], found: Findings) -> None:
    if manifest.run != folder.name:
        found.differ(MANIFEST, "run", folder.name, manifest.run)
    for name in sorted(set(names) - {MANIFEST} | manifest.files.keys()):
        if name in names:
            found.hash(name, manifest.files.get(name, "none"), file_hash(folder / name))
        else:
            found.differ(name, "", "a file", None)
    own = metadata.version("tutelage")
    if manifest.tutelage != own:
        found.note(f"made by Tutelage {manifest.tutelage}, verified by {own}: what differs may be the versions")
    if not manifest.weights:
        found.skip("trainings", "the weights are not in the bundle, only their hashes", 0)


def _make_again(folder: Path, scratch: Path, config: Config, manifest: Manifest, found: Findings) -> None:
    try:
        run = AuditedRun(folder, scratch, found, not manifest.weights)
        with open_recorded(run, config) as loop:
            run.loop = loop
            planned = planned_rounds(run, config, _rounds_once(run), manifest.round)
            replay(loop, manifest.round, planned, manifest.final)
        if (folder / "report.json").exists():
            # Once through JSON, as it was written: keys become texts.
            made = loads(dumps(gather(run, config).model_dump(mode="json")))
            recorded = read_json(folder / "report.json")
            found.add("report.json", compare_values("report.json", made, recorded, NOT_HERE))
        _check_rest(run, config, manifest, found)
    except (TutelageError, *BROKEN) as error:
        # Whatever tampered records lead a node to: what comes after it cannot be checked, and that is said.
        found.differ("bundle", "", "records that go together", f"{type(error).__name__}: {error}")


def _check_rest(run: AuditedRun, config: Config, manifest: Manifest, found: Findings) -> None:
    """Every file belongs to a stage that was made again, or is one of the few beside them."""
    for name in manifest.files:
        stage = name.rpartition("/")[0]
        stage = stage if stage in run.reached else stage.rpartition("/")[0]
        if stage not in run.reached and name not in (*BESIDE, "report.json") and not name.startswith("teacher/"):
            found.differ(name, "", None, "a file of no stage")
    kept = [run.path / CHANGES, *run.stage_path("teacher").glob("*.json*")]
    for file in (path for path in kept if path.exists()):
        found.skip("beside the stages", f"{file.name} is a log", count_numbers(file))
    if not generated(config):
        found.skip("items and splits", "the data set is not in the bundle: which rows became items", 0)
    graders = Counter(
        str(g.grader) for path in run.path.glob("answers/*/*/grades.jsonl") for g in read_records(path, Grade)
    )
    for grader, said in (("python", "user grader"), ("judge", "an LLM's verdicts")):
        if graders[grader]:
            found.skip("answers and grades", f"{said}: {graders[grader]} verdicts", 0)


def _rounds_once(run: RunDir) -> set[int]:
    """The numbers of rounds that a run's config has had."""
    path = run.path / CHANGES
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    values = [value for line in lines for value in loads(line).get("rounds", ())]
    return {value for value in values if isinstance(value, int)}


def _document(record: Record) -> bytes:
    return (dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def _hash(of: Path | bytes) -> str:
    return sha256(of).hexdigest() if isinstance(of, bytes) else file_hash(of)
