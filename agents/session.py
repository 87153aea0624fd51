"""Starting and resuming a run: its name, the config's identity, the parts of the loop.

The only place that chooses a student (transformers, vLLM or a fake) and a teacher (offline or an LLM).
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agents.earlier_decisions import copy_decisions
from agents.first_files import CHANGES, write_config, write_first_files
from agents.ledger import LEDGER, Ledger
from agents.loop import Loop
from agents.method_checks import check_methods
from agents.progress import ProgressPrinter
from agents.teacher import OfflineTeacher, Teacher
from agents.wire import read_key
from curriculum.config import Config, changed_keys, flatten, load_config
from curriculum.data_config import FileSource, Source
from curriculum.errors import ConfigError, RunDirError
from curriculum.gate_odds import gate_p_value
from curriculum.grading import Grader
from curriculum.judging import Judge, Judgements, OpenAnswer
from curriculum.looks import next_look
from curriculum.prompts import system_prompt
from curriculum.report import RoundReport
from curriculum.rows import printable
from curriculum.rundir import RunDir, append_line, finished_rounds, read_json, read_record
from curriculum.user_grader import grader_file
from student.fakes import FakeStudent
from student.interface import Student
from student.local import LocalStudent
from student.vllm_main import has_gpu
from student.vllm_student import VllmStudent, has_vllm

if TYPE_CHECKING:
    from agents.llm_teacher import LLMTeacher

MOST_GATE_ITEMS = 10_000
MOST_NAME_CHARACTERS = 60
"""Of a run's name, which is part of its adapters' names."""
TRACKERS = "trackers"
"""The folder that the runs of a `runs_dir` share."""


def create_run(config: Config, config_path: Path, name: str | None, decisions: RunDir | None = None) -> RunDir:
    """Makes a run's folder with its config and its `run.json`, and copies of another run's decisions on plans.

    Without a name the run is called after its config file, with the first free number.

    Raises:
        ConfigError: the gate could accept nothing, or a method lacks what it needs.
        RunDirError: the named run exists, or the folder cannot be made.
    """
    check_start(config)
    with new_folder(config, name, config_path.stem) as (draft, path):
        if decisions:
            copy_decisions(decisions, draft)
        write_first_files(draft, path.name, config, {})
    return RunDir(path)


@contextmanager
def new_folder(config: Config, name: str | None, stem: str) -> Iterator[tuple[Path, Path]]:
    """A folder to make a run in, and the one it becomes when it is complete: a kill leaves no half a run.

    Raises:
        RunDirError: the named run exists, or the folder cannot be made.
    """
    path = _named(config.runs_dir, name or _free_name(config.runs_dir, stem))
    if path.exists():
        raise RunDirError(f"{path}: this run exists. Go on with `tutelage resume {path}`, or give another --name")
    draft = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft, path
        draft.rename(path)
    except OSError as error:
        raise RunDirError(
            f"{path}: cannot make the run's folder: {error.strerror}. Set runs_dir to a place you own, with space left"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _named(runs_dir: Path, name: str) -> Path:
    path = runs_dir / name
    plain = name.isprintable() and len(name) <= MOST_NAME_CHARACTERS and path.parent == runs_dir
    if not plain or name.startswith((".", "-")) or name == TRACKERS:
        raise RunDirError(
            f"--name {printable(name)}: expected a plain folder name, such as first-try: at most "
            f"{MOST_NAME_CHARACTERS} characters on one line, no slash, no dot or dash at the beginning, not {TRACKERS}"
        )
    return path


def measuring_folder(config: Config, name: str) -> Path:
    """The folder that keeps what measuring a teacher bought, made if it is not there; no run's own.

    Raises:
        RunDirError: the name is not plain, a run has it, or the folder cannot be made.
    """
    path = _named(config.runs_dir, name)
    if (path / "run.json").exists():
        raise RunDirError(f"{path}: this is a run. Give another --name")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(
            f"{path}: cannot make the folder: {error.strerror}. Set runs_dir to a place you own, with space left"
        ) from None
    return path


def open_run(path: Path, overrides: Sequence[str] = (), only_read: bool = False) -> tuple[RunDir, Config]:
    """Opens an existing run, with overrides of operational keys.

    To be `only_read` it may be of a version that did not know every key of today.

    Raises:
        RunDirError: not a run's folder, or keys of the run's identity differ; they are named.
    """
    if not (path / "run.json").is_file():
        raise RunDirError(f"{path}: expected a run's folder with a run.json. Start one with: tutelage run CONFIG")
    config = load_config(path / "config.yaml", overrides)
    began = flatten(read_json(path / "run.json")["identity"])
    changed = changed_keys(began, config.identity())
    changed = {key: values for key, values in changed.items() if key in began or not only_read}
    if changed:
        raise RunDirError(
            f"{path}: these keys are the run's identity and cannot change within it:\n"
            + "\n".join(f"  {key}: {was} → {now}" for key, (was, now) in changed.items())
            + f"\nPut them back, start a new run, or try them on a copy: tutelage fork {path} --round K"
        )
    return RunDir(path), config


def extended(run: RunDir, config: Config, rounds: int) -> Config:
    """The config of a run that is to have some rounds more.

    Raises:
        RunDirError: the run's own plan was to stop: more rounds would not be taken.
    """
    done = finished_rounds(run)
    if done:
        last = read_record(run.round_stage(done - 1, "report") / "report.json", RoundReport)
        if last.decision == "stopped":
            raise RunDirError(
                f"{run.path}: expected a run that more rounds can follow, got one that stopped itself in round "
                f"{last.round}: {last.reason}. Let other settings take over from an earlier round: "
                f"tutelage fork {run.path} --round {last.round - 1} --set KEY=VALUE"
            )
    return config.model_copy(update={"rounds": config.rounds + rounds})


def chosen_engine(config: Config) -> Config:
    """The config with the engine that `auto` stands for on this machine: a run keeps the one it began with."""
    if config.student.engine != "auto":
        return config
    served = config.student.vllm.urls or (has_vllm() and has_gpu() and not config.student.quantise)
    engine = "vllm" if served else "transformers"
    return config.model_copy(update={"student": config.student.model_copy(update={"engine": engine})})


def check_start(config: Config) -> None:
    """Refuses a gate that could accept nothing, and methods without what they need: all faults at once.

    Raises:
        ConfigError: with every fault.
    """
    faults = []
    for check in (check_gate, check_methods):
        try:
            check(config)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))


def check_gate(config: Config) -> None:
    """Refuses a gate that could accept nothing, were every item gained and none lost.

    Raises:
        ConfigError: with the smallest size that could.
    """
    level = next_look(1, config.rounds, config.gate, ()).level

    def can_accept(items: int) -> bool:
        return gate_p_value(items, 0, items, config.gate.retrain_sd) <= level

    size = config.data.splits.gate
    if not can_accept(size):
        least = next((n for n in range(size + 1, MOST_GATE_ITEMS) if can_accept(n)), None)
        advice = "lower gate.retrain_sd" if least is None else f"give data.splits.gate at least {least} items"
        raise ConfigError(
            f"data.splits.gate: expected items enough to accept an adapter that answers all of them right and none "
            f"before, got {size}: at a level of {level:.2g} a round (gate.alpha {config.gate.alpha:g}) no gain could "
            f"be seen. So {advice}; `tutelage forecast` says what a size can see"
        )


def record_changes(path: Path, config: Config) -> None:
    """Journals the operational keys that differ from the run's config file, and writes them there."""
    before = flatten(load_config(path / "config.yaml").model_dump(mode="json"))
    after = flatten(config.model_dump(mode="json"))
    changed = {key: [before.get(key), after[key]] for key in after if before.get(key) != after[key]}
    if changed:
        append_line(path / CHANGES, {"at": datetime.now(UTC).isoformat(timespec="seconds")} | changed)
        write_config(path, config)


def check_keys(config: Config) -> None:
    """Refuses an LLM teacher whose keys are not in the environment, before anything is done.

    Raises:
        UserError: with the variable.
    """
    for endpoint in config.endpoints:
        read_key(endpoint)


def remove_run(run: RunDir) -> None:
    """Removes a run that failed before it prepared anything."""
    shutil.rmtree(run.path)


@contextmanager
def open_loop(run: RunDir, config: Config, progress: ProgressPrinter) -> Iterator[Loop]:
    """The parts of the loop, as the config names them; worker processes end with it."""
    prompt = system_prompt(config.student)
    with ExitStack() as stack:
        student: Student
        if config.student.engine == "fake":
            student = FakeStudent(lambda: {**loop.examples, **{e.id: e for e in loop.held_out()}}, prompt.text)
        elif chosen_engine(config).student.engine == "vllm":
            student = stack.enter_context(
                closing(VllmStudent(config.student, config.training, prompt.text, progress.say))
            )
        else:
            student = stack.enter_context(closing(LocalStudent(config.student, config.training, prompt.text)))

        def judge(rubric: str, answers: Sequence[OpenAnswer]) -> list[Judgements]:
            assert llm is not None, "only an LLM teacher judges; the config was checked"
            return llm.judge(rubric, answers, finished_rounds(run))

        grader = stack.enter_context(_grader(config.data, judge))
        graders = {name: stack.enter_context(_grader(source, judge)) for name, source in config.extra.items()}
        llm = _llm_teacher(run, config, grader, progress, stack, lambda: loop.check_stop())
        teacher: Teacher = llm or OfflineTeacher(config)
        planner = llm if config.plan.by == "llm" else None
        loop = Loop(run, config, teacher, student, prompt, grader, progress, progress.say, planner, graders)
        yield loop


def _llm_teacher(
    run: RunDir,
    config: Config,
    grader: Grader,
    progress: ProgressPrinter,
    stack: ExitStack,
    check_stop: Callable[[], None],
) -> "LLMTeacher | None":
    if config.teacher.kind == "offline":
        return None
    from agents.llm_teacher import LLMTeacher  # and with it the client, which an offline run does not need

    ledger = Ledger(run.path / LEDGER, config.teacher.budget)
    teacher = LLMTeacher(config, ledger, grader, progress, progress.say, check_stop)
    return stack.enter_context(closing(teacher))


def check_grader_trusted(run: RunDir, config: Config, trusted: bool) -> None:
    """Nobody's code is run because a run's folder names it: a person has to say so.

    Raises:
        RunDirError: the run names a grader function, and nobody said that it may run.
    """
    functions = {s.grader_function for s in config.sources if isinstance(s, FileSource) and s.grader_function}
    for function in [] if trusted else sorted(functions):
        file = grader_file(function, Path.cwd())
        question = (
            f"{run.path}: this run grades with a function of its own, `{function}`: it would import and run {file}."
        )
        if not sys.stdin.isatty():
            raise RunDirError(f"{question} Read that file; if you trust it, say so with --trust-grader")
        if input(f"{question} Do you trust that file? [y/N] ").strip().lower() not in ("y", "yes"):
            raise RunDirError(f"{run.path}: its grader `{function}` was not trusted: nothing was done")


def _grader(data: Source, judge: Judge) -> Grader:
    if not isinstance(data, FileSource):
        return Grader()
    return Grader(
        pattern=data.grader_pattern,
        function=data.grader_function,
        rubric=data.grader_rubric or "",
        judge=judge,
        check=data.grader_check,
    )


def _free_name(runs_dir: Path, stem: str) -> str:
    number = 1
    while (runs_dir / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"
