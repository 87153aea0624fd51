"""The node `control`: an adapter trained as the round's own, but for the rows that were targeted.

It comes after the gate, so that nothing it finds can decide; only the report reads it.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.bindings import bound_rows
from agents.evaluation import evaluate_split
from agents.history import accepted_rounds, adapter_before, pool_index, written_levels
from agents.loop import Loop, State, stage_inputs
from agents.targets import target_texts
from agents.teach import Made, earlier_outputs, fit_adapter, write_rows, write_training_set
from curriculum.config import Config
from curriculum.control import Arm, ControlReport, compare, control_order, control_rows, draw_untargeted
from curriculum.data_config import GeneratorData
from curriculum.errors import DataError, TrainingError, UserError
from curriculum.records import BASE, Split
from curriculum.round_records import Adapter, TrainingRow
from curriculum.rundir import DONE, read_record, read_records
from student.interface import AdapterFiles, TrainingSettings

BUILD, TRAIN = "control_build", "control_train"
"""The stages of a round's control."""


def control(loop: Loop, state: State) -> State:
    """Where the config wants it: the round's control is built, trained and scored on the gate split."""
    round_ = state["round"]
    # A round that a fork took over stays as it is.
    if round_ and wants_control(loop.config, round_) and not _taken_over(loop, round_):
        _build(loop, round_)
        _train(loop, round_)
        evaluate_split(loop, pair(loop, round_)[1], "gate")
    return {}


def wants_control(config: Config, round_: int) -> bool:
    """Whether the config wants a round's control trained."""
    return config.control == "every_round" or (config.control == "last_round" and round_ == config.rounds)


def has_control(loop: Loop, round_: int) -> bool:
    """Whether a round's control is trained."""
    return (loop.run.round_stage(round_, TRAIN) / DONE).exists()


def pair(loop: Loop, round_: int) -> tuple[AdapterFiles, AdapterFiles]:
    """The adapters of a round's candidate and of its control."""
    folders = [loop.run.round_stage(round_, stage) for stage in ("train", TRAIN)]
    names = [read_record(folder / "adapter.json", Adapter).name for folder in folders]
    return AdapterFiles(names[0], folders[0] / names[0]), AdapterFiles(names[1], folders[1] / names[1])


def pair_folders(loop: Loop, round_: int, split: Split) -> list[Path]:
    """The stages of what both answered on a split."""
    return [evaluate_split(loop, files, split).folder for files in pair(loop, round_)]


def compared(loop: Loop, round_: int, split: Split) -> ControlReport:
    """How the candidate of a round and its control answered a split, made now or read from disk."""
    arms = []
    for files, build, train in zip(pair(loop, round_), ("build", BUILD), ("train", TRAIN), strict=True):
        adapter = read_record(loop.run.round_stage(round_, train) / "adapter.json", Adapter)
        rows = read_records(loop.run.round_stage(round_, build) / "training_set.jsonl", TrainingRow)
        arms.append(Arm(adapter, rows, evaluate_split(loop, files, split).grades))
    return compare(round_, arms[0], arms[1], loop.labels, loop.config.gate.retrain_sd)


def _taken_over(loop: Loop, round_: int) -> bool:
    of_round = {stage for stage in loop.run.inherited if stage.startswith(f"round_{round_:02d}/")}
    return bool(of_round) and f"round_{round_:02d}/{TRAIN}" not in of_round


def _build(loop: Loop, round_: int) -> None:
    built = loop.run.round_stage(round_, "build")
    read = (loop.run.stage_path("label"), loop.run.round_stage(round_, "approve"), built)
    inputs = stage_inputs(loop, *read, *earlier_outputs(loop, round_))

    def work(folder: Path) -> Mapping[str, Any]:
        plan = loop.plan(round_)
        targeted = read_records(built / "training_set.jsonl", TrainingRow)
        origins = Counter(row.origin for row in targeted)
        made, pool_rows = Made([], [], [], []), origins["pool"]
        if isinstance(loop.config.data, GeneratorData) and loop.config.teacher.kind == "offline":
            made = write_rows(loop, control_order(plan, origins["written"], written_levels(loop)))
        else:
            pool_rows += origins["written"]
        accepted = [row for r in accepted_rounds(loop, round_) for row in loop.new_rows(r)]
        used = Counter(row.example_id for row in accepted)
        draws = draw_untargeted(pool_rows, plan.seed, pool_index(loop), used, loop.config.plan.max_repeats)
        labels = {**loop.labels, **{label.example_id: label for label in made.labels}}
        current = loop.adapter_files(*adapter_before(loop, round_))
        pool = [loop.examples[draw.example_id] for draw in draws]
        targets = target_texts(loop, folder, plan, current, pool, made)
        rows = control_rows(plan, targeted, draws, loop.examples, made.rows, accepted, labels, targets)
        rows = bound_rows(loop, plan, rows)
        if not rows:
            raise DataError(
                f"{folder}: the control of round {round_} has no row to train on; run without: control=none"
            )
        write_training_set(loop, folder, rows, made)
        return {}

    loop.stage(loop.run.round_stage(round_, BUILD), inputs, work)


def _train(loop: Loop, round_: int) -> None:
    """With the plan, the seed, the start and as many steps as the round's own training."""
    plan = loop.plan(round_)
    built, trained = loop.run.round_stage(round_, BUILD), loop.run.round_stage(round_, "train")
    current = loop.adapter_files(*adapter_before(loop, round_))
    start = current if loop.config.training.start == "accepted" else loop.adapter_files(BASE, 0)
    steps = read_record(trained / "adapter.json", Adapter).steps
    settings = TrainingSettings(plan.learning_rate, plan.epochs, plan.seed, start.folder, steps)
    inputs = stage_inputs(loop, built, loop.run.round_stage(round_, "approve"), trained) | {
        "base": loop.base_hash,
        "start": start.name,
        "prompt": loop.prompt.hash,
    }

    def work(folder: Path) -> Mapping[str, Any]:
        try:
            fit_adapter(loop, round_, built / "training_set.jsonl", settings, folder, "control")
        except TrainingError as error:
            raise UserError(
                f"{error}\nThat was the control of round {round_}, which decides nothing. Go on without it: "
                f"tutelage resume {loop.run.path} --set control=none"
            ) from None
        return {}

    loop.stage(loop.run.round_stage(round_, TRAIN), inputs, work)
