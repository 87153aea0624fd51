"""The run directory, the only authority on what a run has done.

Every stage has a folder. It ends by writing its files whole (temporary name, fsync, rename) and then
`done.json`: the hash of its inputs, the hashes of its outputs and the update it makes to the graph's
state. A stage with a valid `done.json` is skipped and returns that same update; any other is run, and
goes on from its journals when they were written for the same inputs. Nothing here knows what a stage does.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from curriculum.errors import RunDirError, disk_message
from curriculum.records import Record, canonical_json, content_id

R = TypeVar("R", bound=Record)
DONE = "done.json"
STARTED = "started.json"
TIMING = "timing.json"
UNHASHED = (DONE, STARTED, TIMING)
"""Files of a stage that are not its outputs. Journals (`*.journal`) and logs (`*.log`) are not either."""
SCHEMA_VERSION = 1
"""Of every document and every line of records; a file of a newer one is refused, never read as this one."""


@contextmanager
def _told_when_unwritable(path: Path) -> Iterator[None]:
    """A full disk, a read-only folder or a limit on file sizes becomes a message that says how to go on."""
    try:
        yield
    except OSError as error:
        raise RunDirError(disk_message(error, path)) from None


def write_atomic(path: Path, text: str) -> None:
    """Writes a whole file or nothing: temporary name, fsync, rename, fsync of the folder.

    Raises:
        RunDirError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with _told_when_unwritable(path):
        try:
            with temporary.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, value: object) -> None:
    """Writes a JSON document, indented, keys sorted."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON document.

    Raises:
        RunDirError: the file is missing, is not JSON, or is of a newer version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirError(
            f"{path}: expected a JSON document of this run, got: {error}. Resume a copy, or start again"
        ) from None
    check_version(path, value)
    return value


def check_version(where: Path | str, value: object) -> None:
    """Refuses a document of another schema version; one that names none is of the first.

    Raises:
        RunDirError: with the place and both versions.
    """
    version = value.get("schema_version", SCHEMA_VERSION) if isinstance(value, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise RunDirError(
            f"{where}: expected schema_version {SCHEMA_VERSION}, got {str(version)[:40]}"
            + (": a newer Tutelage wrote it. Use that version (run.json names it)" if newer else ". Put the file back")
            + ", or start a new run"
        )


def write_record(path: Path, record: Record) -> None:
    """Writes one record as a document."""
    write_json(path, record.model_dump(mode="json"))


def read_record(path: Path, kind: type[R]) -> R:
    """Reads one record from a document; raises `RunDirError` when it is not one."""
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise RunDirError(f"{path}: expected a {kind.__name__}, got: {error}") from None


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Writes records as JSON lines, in the order given."""
    write_atomic(path, "".join(canonical_json(r.model_dump(mode="json")) + "\n" for r in records))


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Reads JSON lines; a line that is not a record of this kind raises `RunDirError` with its number."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunDirError(f"{path}: expected {kind.__name__} records, got: {error.strerror}") from None
    return [_parse(path, number, line, kind) for number, line in enumerate(lines, 1) if line]


def _parse(path: Path, number: int, line: bytes, kind: type[R]) -> R:
    try:
        value = json.loads(line)
        check_version(f"{path}:{number}", value)
        return kind.model_validate(value)
    except RunDirError:
        raise
    except ValueError as error:
        raise RunDirError(f"{path}:{number}: expected a {kind.__name__}, got {line[:80]!r}: {error}") from None


def open_journal(path: Path, kind: type[R]) -> list[R]:
    """Cuts a journal back to its last newline, for a kill can tear the last line, and returns its records."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return read_journal(path, kind)


def read_journal(path: Path, kind: type[R]) -> list[R]:
    """The records up to a journal's last newline, which may still be written to; a new journal is empty.

    A bad line is damage, and raises `RunDirError`.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_parse(path, number, line, kind) for number, line in enumerate(lines, 1) if line]


def append_journal(path: Path, record: Record) -> None:
    """Appends one record as one flushed line."""
    append_line(path, record.model_dump(mode="json"))


def append_line(path: Path, value: object) -> None:
    """Appends one JSON value as one flushed line, whole or not at all.

    Raises:
        RunDirError: the disk is full or the file cannot be written.
    """
    line = (canonical_json(value) + "\n").encode("utf-8", "surrogatepass")
    with _told_when_unwritable(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while line:  # what a nearly full disk did not take fails, with its reason, the second time
                line = line[file.write(line) :]
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_cost(folder: Path, **measured: float) -> None:
    """Notes a stage's `tokens` or `scoring_seconds`, beside the time that `RunDir.run_stage` notes."""
    write_json(folder / TIMING, measured)


def finished_rounds(run: "RunDir") -> int:
    """How many rounds have a report, round 0 included."""
    count = 0
    while (run.round_stage(count, "report") / DONE).exists():
        count += 1
    return count


class RunDir:
    """A run's folder: where its stages are, and whether they are done.

    Use it as a context manager: one process a run, held by a lock file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=0)

    def __enter__(self) -> "RunDir":
        with _told_when_unwritable(self.path / ".lock"):
            try:
                self._lock.acquire()
            except Timeout:
                raise RunDirError(
                    f"{self.path}: another process is working on this run; wait for it or stop it"
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def stage_path(self, name: str) -> Path:
        """The folder of a stage, such as `prepare` or `round_01/train`."""
        return self.path / name

    def outputs_hash(self, folder: Path) -> str:
        """One hash over all outputs of a finished stage, for the inputs of the stages that read it."""
        return content_id(read_json(folder / DONE)["outputs"], 64)

    def round_stage(self, round_: int, name: str) -> Path:
        """The folder of a stage of a round; round 0 is the untrained base."""
        return self.path / f"round_{round_:02d}" / name

    @cached_property
    def inherited(self) -> Mapping[str, str]:
        """The stages a fork took over as they are, by path, with the hash of each `done.json`."""
        facts = _read_or_empty(self.path / "run.json")
        return dict(facts.get("inherited", {}))

    def run_stage(
        self, folder: Path, inputs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Runs `work(folder)` unless the stage is done for these inputs; returns the stage's state update.

        Args:
            folder: the stage's folder, inside the run's.
            inputs: everything that determines the outputs, as JSON values (hashes of files, config).
            work: writes its files into the folder and returns the state update, plain JSON values. It may
                find journals of an interrupted attempt with the same inputs there.

        Raises:
            RunDirError: a stage that this run took over from another is not as it was.
        """
        taken_over = self.inherited.get(folder.relative_to(self.path).as_posix())
        if taken_over is not None:
            return self._taken_over(folder, taken_over)
        wanted = content_id(dict(inputs), 64)
        done = self._done(folder, wanted)
        if done is None:
            started = folder / STARTED
            if not (started.exists() and _read_or_empty(started).get("inputs_hash") == wanted):
                # Whatever lies here was made from other inputs: nothing of it may leak into this attempt.
                shutil.rmtree(folder, ignore_errors=True)
                with _told_when_unwritable(folder):
                    folder.mkdir(parents=True)
                write_json(started, {"schema_version": 1, "inputs_hash": wanted})
            since = time.monotonic()
            update = dict(work(folder))
            done = {
                "schema_version": 1,
                "inputs": dict(inputs),
                "inputs_hash": wanted,
                "outputs": _outputs(folder),
                "update": update,
            }
            timing = _read_or_empty(folder / TIMING)
            write_json(folder / TIMING, timing | {"seconds": round(time.monotonic() - since, 1)})
            write_json(folder / DONE, done)
        # Nothing needs a finished stage's journals any more, nor what a kill left of a half-written file.
        for leftover in (*folder.rglob("*.journal"), *folder.rglob(".*.tmp")):
            leftover.unlink()
        return dict(done["update"])

    def _taken_over(self, folder: Path, done_hash: str) -> dict[str, Any]:
        if not ((folder / DONE).is_file() and file_hash(folder / DONE) == done_hash and is_whole(folder)):
            raise RunDirError(
                f"{folder}: expected the stage as this fork took it over, got other files. It cannot be made again "
                "here: put them back, or fork again"
            )
        return dict(read_json(folder / DONE)["update"])

    def _done(self, folder: Path, wanted: str) -> dict[str, Any] | None:
        done = _read_or_empty(folder / DONE)
        if done.get("inputs_hash") != wanted:
            return None
        return done if is_whole(folder) else None


def is_whole(folder: Path) -> bool:
    """Whether a stage is finished and its outputs are those its `done.json` names."""
    return _read_or_empty(folder / DONE).get("outputs") == _outputs(folder)


def _outputs(folder: Path) -> dict[str, str]:
    """The hashes of a stage's outputs, by path within its folder."""
    return {
        p.relative_to(folder).as_posix(): file_hash(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in UNHASHED and p.suffix not in (".journal", ".log", ".tmp")
    }


def _read_or_empty(path: Path) -> dict[str, Any]:
    """A document that may be missing or torn: then it says nothing."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    check_version(path, value)
    return value if isinstance(value, dict) else {}
