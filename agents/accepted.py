"""The accepted adapter of a finished run, checked against what the run recorded of it.

What an export is made of is read here and nowhere else: a file that is not as the run left it is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agents.loop import MERGE, adapter_stage
from agents.reporting import gather
from agents.session import open_run
from curriculum.config import Config
from curriculum.data_config import FileData
from curriculum.errors import RunDirError
from curriculum.model_card import Base, honest_base
from curriculum.prompts import Prompt, system_prompt
from curriculum.records import BASE
from curriculum.report import RunReport
from curriculum.round_records import Adapter
from curriculum.rundir import DONE, RunDir, file_hash, is_whole, read_json, read_record

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


class Accepted(NamedTuple):
    """What is exported: a run's accepted adapter, checked against the run's records."""

    run: RunDir
    config: Config
    identity: Mapping[str, Any]
    """What determined the run, as it recorded it."""
    report: RunReport
    adapter: Adapter
    rounds: tuple[int, ...]
    """The rounds whose training sets taught it, the oldest first: more than one where it went on from an adapter."""
    prompt: Prompt

    @property
    def folder(self) -> Path:
        """Where the run has its files."""
        return adapter_stage(self.run, self.adapter.round, self.adapter.name) / self.adapter.name

    @property
    def base(self) -> Base:
        """The base's honest name."""
        return honest_base(self.config.student.base, self.config.student.revision, self._local_base)

    @property
    def names_this_machine(self) -> bool:
        """Whether the config or the adapter's own config names a folder of this machine."""
        return self._local_base or isinstance(self.config.data, FileData)

    @property
    def _local_base(self) -> bool:
        name = self.config.student.base
        return name.startswith(("/", ".", "~")) or Path(name).expanduser().is_dir()

    @property
    def answers(self) -> Path:
        """Its answers on the final split."""
        return self.run.stage_path("answers") / self.adapter.name / "final"


def open_accepted(path: Path) -> Accepted:
    """The accepted adapter of a finished run, after every check.

    Raises:
        RunDirError: no finished run with an accepted adapter, or its files are not those it recorded.
        ConfigError: the run's system prompt cannot be read any more.
    """
    run, config = open_run(path, only_read=True)
    report = gather(run, config)
    if report.final is None:
        raise RunDirError(
            f"{path}: expected a finished run, got one whose final test is still to come. Go on with: "
            f"tutelage resume {path}"
        )
    name = report.final.adapter_name
    if name == BASE:
        raise RunDirError(
            f"{path}: expected a run with an accepted adapter, got one that accepted none: the student is still the "
            "base, and there is nothing to export. `tutelage report` says why each round was rolled back"
        )
    if config.student.engine == "fake":
        raise RunDirError(f"{path}: expected a student with weights, got a run of the FAKE student: it has no adapter")
    made = {r.candidate: r.round for r in report.rounds if r.candidate}
    rounds = _lineage(run, name, made)
    stages = ["prepare", "label", "final", "answers/base/final", f"answers/{name}/final"]
    stages += [f"round_{r:02d}/{stage}" for r in rounds for stage in ("build", "train", "gate")]
    made_in = adapter_stage(run, made[name], name)
    if made_in.name == MERGE:
        stages += [f"round_{made[name]:02d}/{MERGE}"]
    adapter = read_record(made_in / "adapter.json", Adapter)
    check_files(made_in / name, adapter.files)
    for stage in stages:
        if not is_whole(run.stage_path(stage)):
            raise RunDirError(
                f"{run.stage_path(stage)}: expected the files that its {DONE} names, got others. Put them back from a "
                "copy: what was changed after the run ended cannot be exported"
            )
    prompt = system_prompt(config.student)
    told = read_json(run.round_stage(adapter.round, "train") / DONE)["inputs"]["prompt"]
    if prompt.hash != told:
        raise RunDirError(
            f"{path}: expected the system prompt that the student was taught with (hash {told}), got another (hash "
            f"{prompt.hash}). Put student.system_prompt_file back as it was, or use the version of Tutelage that "
            "run.json names"
        )
    return Accepted(run, config, read_json(path / "run.json")["identity"], report, adapter, rounds, prompt)


def check_files(folder: Path, recorded: Mapping[str, str]) -> None:
    """Makes sure an adapter's files are those the run recorded.

    Raises:
        RunDirError: with the file and both hashes.
    """
    for name in ADAPTER_FILES:
        expected = recorded.get(name)
        got = file_hash(folder / name) if (folder / name).is_file() else None
        if expected is None or got != expected:
            raise RunDirError(
                f"{folder / name}: expected the file that the run recorded (SHA-256 {expected or 'none'}), got "
                f"{f'one with {got}' if got else 'none'}. It was changed after the training: put it back from a copy, "
                "or train again"
            )


def _lineage(run: RunDir, name: str, made: Mapping[str, int]) -> tuple[int, ...]:
    """The rounds whose trainings an adapter goes back to: its ingredients', and those that they went on from."""
    rounds: set[int] = set()
    names = {name} - {BASE}
    while names:
        name = names.pop()
        adapter = read_record(adapter_stage(run, made[name], name) / "adapter.json", Adapter)
        for round_ in {part.round for part in adapter.merged.ingredients} if adapter.merged else {made[name]}:
            if round_ not in rounds:
                rounds.add(round_)
                names |= {read_json(run.round_stage(round_, "train") / DONE)["inputs"]["start"]} - {BASE}
    return tuple(sorted(rounds))
