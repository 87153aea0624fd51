"""What the rest of a round will take once its plan is approved: answers, rows, minutes, and an LLM teacher's share.

Minutes go by what this run measured so far; where it has not, by the quickstart's, and where those say nothing of
the student, they are unknown.
"""

from agents.control import wants_control
from agents.forecast import ANSWERS_PER_SECOND, ROWS_PER_SECOND
from agents.history import adapter_before
from agents.loop import Loop
from agents.recorded_usage import count_lines, recorded_usage
from agents.teacher_work import Known
from curriculum.merging import merging_answers
from curriculum.proposal import RoundForecast
from curriculum.round_records import Adapter, RoundPlan
from curriculum.rundir import DONE, TIMING, read_json, read_record
from curriculum.teacher_records import TeacherForecast
from student.base_model import SMOLLM2

Speeds = tuple[float, float]
"""The least and the most a second."""


def round_forecast(loop: Loop, plan: RoundPlan) -> RoundForecast:
    """What building, training and gating this plan will take; nothing is loaded or spent."""
    controls = 1 if wants_control(loop.config, plan.round) else 0
    answers = (1 + controls) * len(loop.split("gate")) + _retention_answers(loop, plan.round)
    training = loop.config.training
    answers += merging_answers(len(training.lines or ()), training.soup, plan.round, len(loop.split("probe")))
    answers += (1 + controls) * loop.config.plan.own_answers(plan.new_rows - plan.written_rows)
    rows = (1 + controls) * plan.epochs * (plan.new_rows + plan.replay_rows)
    minutes, basis = _minutes(loop, answers, rows)
    teacher, left_out = (None, "") if loop.config.teacher.kind == "offline" else _teacher(loop, plan)
    return RoundForecast(
        written_rows=plan.written_rows,
        training_rows=rows,
        answers=answers,
        minutes=minutes,
        basis=basis,
        teacher=teacher,
        teacher_left_out=left_out,
    )


def _retention_answers(loop: Loop, round_: int) -> int:
    """The candidate's to each retention set, and those of the current adapter that has not answered it yet."""
    current, _ = adapter_before(loop, round_)
    answered = loop.run.stage_path("answers") / current
    known = {name: (answered / f"extra-{name}" / DONE).exists() for name in loop.config.retention_sets}
    return sum(len(loop.extra[name]) * (1 if there else 2) for name, there in known.items())


def _minutes(loop: Loop, answers: int, rows: int) -> tuple[tuple[float, float] | None, str]:
    answering, training = _answers_per_second(loop), _rows_per_second(loop)
    basis = "Speeds are those that this run measured so far; an adapter that answers shorter is faster."
    if answering is None or training is None:
        if loop.config.student.base not in (SMOLLM2, "fake"):
            return None, "This run has measured no training yet, and the quickstart's speeds are of another student."
        speeds = {"answering": answering, "training": training}
        what = " and ".join(name for name, speed in speeds.items() if speed is None)
        basis = f"For {what} the quickstart's speed on two CPU cores is taken: this run has measured none yet."
        answering, training = answering or ANSWERS_PER_SECOND, training or ROWS_PER_SECOND
    slow, fast = (answers / answering[end] + rows / training[end] for end in (0, 1))
    return (round(fast / 60, 2), round(slow / 60, 2)), basis


def _answers_per_second(loop: Loop) -> Speeds | None:
    measured = []
    for path in sorted(loop.run.stage_path("answers").glob(f"*/*/{TIMING}")):
        file, seconds = path.with_name("answers.jsonl"), read_json(path).get("seconds")
        if file.exists() and seconds:
            measured.append(count_lines(file) / seconds)
    return (min(measured), max(measured)) if measured else None


def _rows_per_second(loop: Loop) -> Speeds | None:
    measured = []
    for path in sorted(loop.run.path.glob(f"round_*/train/{TIMING}")):
        record, seconds = path.with_name("adapter.json"), read_json(path).get("seconds")
        if record.exists() and seconds:
            made = read_record(record, Adapter)
            measured.append(made.rows * loop.plan(made.round).epochs / seconds)
    return (min(measured), max(measured)) if measured else None


def _teacher(loop: Loop, plan: RoundPlan) -> tuple[TeacherForecast, str]:
    """What is still to be asked in the round: new rows, and verdicts on the gate where a judge grades."""
    from agents.teacher_cost import teacher_forecast  # and with it the client, which an offline run does not need

    rows = max(1, plan.new_rows)
    planned = loop.config.plan.model_copy(
        update={"by": "rule", "rows_per_round": rows, "write_share": plan.written_rows / rows}
    )
    config = loop.config.model_copy(update={"plan": planned, "rounds": plan.round, "extra": {}})
    examples = [e for e in loop.examples.values() if e.split in ("pool", "gate")]
    known = Known(plan.round - 1, loop.proposed, labelled=True)
    made = teacher_forecast(config, examples, recorded_usage(loop.config), known)
    judged = [name for name in loop.config.retention_sets if getattr(loop.config.extra[name], "grader", "") == "judge"]
    left_out = f"Verdicts on the retention sets {', '.join(judged)} are not counted." if judged else ""
    return made.model_copy(update={"basis": made.basis[1:]}), left_out
