"""Goes through the nodes of a run again, from its records alone, up to a round: every stage they reach is met once.

What happens at a stage is up to the run directory it is given: to bundle a run the stages are listed, to verify a
bundle each is made again. Nothing is asked of a model, and no file outside the run's folder is read.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from agents.control import TRAIN as CONTROL_TRAIN
from agents.graph import NODES, after_approve, after_profile
from agents.loop import Loop, State
from agents.prepare import write_splits
from agents.recorded import (
    RecordedAnswers,
    RecordedGrader,
    RecordedPlanner,
    RecordedPrompt,
    RecordedStudent,
    recorded_inputs,
    recorded_teacher,
)
from curriculum.config import Config
from curriculum.data_config import FileSource
from curriculum.records import BASE, Example, QuarantinedRow
from curriculum.round_records import GateDecision
from curriculum.rundir import DONE, RunDir, read_record, read_records, write_records
from curriculum.splits import DroppedExample, SplitResult

AT_FIRST: State = {"round": 0, "adapter": BASE, "adapter_round": 0}


@contextmanager
def open_recorded(run: RunDir, config: Config) -> Iterator[Loop]:
    """The parts of the loop, each of which gives what the run recorded; grading workers end with it."""
    recorded, inputs = RecordedAnswers(run), recorded_inputs(run)
    with ExitStack() as stack:
        loop = Loop(
            run,
            config,
            recorded_teacher(config, run),
            RecordedStudent(config, inputs["base"], recorded),
            RecordedPrompt(name="recorded", version=1, variables=(), text="", recorded=inputs["prompt"]),
            stack.enter_context(RecordedGrader(config.data, recorded)),
            lambda what, progress: None,
            lambda text: None,
            RecordedPlanner(run) if config.plan.by == "llm" else None,
            {name: stack.enter_context(RecordedGrader(s, recorded)) for name, s in config.extra.items()},
        )
        if config.teacher.kind == "llm":
            # Labels, diagnoses and rows were recorded in the skills of the edited catalogue.
            loop.__dict__["moved_skills"] = {}
        yield loop


def replay(loop: Loop, last: int, planned: Mapping[int, int], final: bool) -> None:
    """Goes through rounds 0 to `last`, and through the final test where it is wanted.

    Args:
        planned: round → the last round that was planned when its gate decided; a run can be extended.
    """
    config = loop.config
    state: State = dict(AT_FIRST)  # type: ignore[assignment]

    def step(*names: str) -> None:
        for name in names:
            state.update(NODES[name](loop, state))

    _prepare(loop)
    step("catalogue", "label")
    for round_ in range(last + 1):
        has_control = (loop.run.round_stage(round_, CONTROL_TRAIN) / DONE).exists()
        loop.config = config.model_copy(
            update={"rounds": planned.get(round_, config.rounds), "control": "every_round" if has_control else "none"}
        )
        step("evaluate", "diagnose", "profile")
        if after_profile(loop, state) == "gate":
            step("gate", "control")
        else:
            step("plan", "approve")
            step(*(["build", "train", "merge", "gate", "control"] if after_approve(loop, state) == "build" else []))
        step("report")
    loop.config = config
    if final:
        step("finish")


def planned_rounds(run: RunDir, config: Config, known: set[int], last: int) -> dict[int, int]:
    """Round → the last round planned when its gate decided, where that is a number of rounds the run once had."""
    planned = {}
    for round_ in range(1, last + 1):
        path = run.round_stage(round_, "gate") / "decision.json"
        said = read_record(path, GateDecision).last_round if path.exists() else None
        if said is not None and said in {max(rounds, round_) for rounds in known | {config.rounds}}:
            planned[round_] = said
    return planned


def generated(config: Config) -> bool:
    """Whether all data come from generators, so that the first stage can be made again."""
    return not any(isinstance(source, FileSource) for source in config.sources)


def _prepare(loop: Loop) -> None:
    """The first stage: made again by its node where the data are generated, counted again where they were read."""
    if generated(loop.config) and loop.config.teacher.kind == "offline":
        NODES["prepare"](loop, State())
        return
    folder = loop.run.stage_path("prepare")

    def work(made: Path) -> Mapping[str, Any]:
        _count_again(loop, folder, made)
        return dict(AT_FIRST)

    loop.stage(folder, {**recorded_inputs(loop.run), "identity": loop.config.identity_hash}, work)


def _count_again(loop: Loop, folder: Path, made: Path) -> None:
    """The items as they were read, under the ids that their contents give, counted."""

    def items(name: str) -> tuple[Example, ...]:
        return tuple(e.model_copy(update={"id": e.content_hash}) for e in read_records(folder / name, Example))

    extra = {name: items(f"extra-{name}.jsonl") for name in sorted(loop.config.extra)}
    dropped = tuple(read_records(folder / "dropped.jsonl", DroppedExample))
    write_splits(made, SplitResult(items("examples.jsonl"), dropped, extra))
    write_records(made / "quarantine.jsonl", read_records(folder / "quarantine.jsonl", QuarantinedRow))
