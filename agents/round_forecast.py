"""What the rest of a round will take once its plan is approved: answers, rows, minutes, what its methods do, and an
LLM teacher's share.

Minutes go by what this run measured so far; where it has not, by the quickstart's, and where those say nothing of
the student, they are unknown.
"""

from agents.control import wants_control
from agents.forecast import ANSWERS_PER_SECOND, ROWS_PER_SECOND, START_SECONDS
from agents.history import adapter_before, pool_index
from agents.loop import Loop
from agents.method_forecast import (
    MethodWork,
    Range,
    entropy_work,
    minutes,
    plus,
    ranking_work,
    unwanted_work,
    weights_work,
    work_words,
)
from agents.ranking import FACTS, RANK, not_ranked
from agents.recorded_usage import count_lines, recorded_usage, rows_per_second
from agents.teacher_work import Known
from curriculum.merging import merging_answers
from curriculum.proposal import MethodForecast, RoundForecast
from curriculum.ranking import RankingFacts, planned_items
from curriculum.round_records import Adapter, RoundPlan
from curriculum.rundir import DONE, TIMING, read_json, read_record
from curriculum.teacher_records import TeacherForecast
from student.base_model import SMOLLM2


def round_forecast(loop: Loop, plan: RoundPlan) -> RoundForecast:
    """What building, training and gating this plan will take; nothing is loaded or spent."""
    controls = 1 if wants_control(loop.config, plan.round) else 0
    answers = (1 + controls) * len(loop.split("gate")) + _retention_answers(loop, plan.round)
    training = loop.config.training
    answers += merging_answers(len(training.lines or ()), training.soup, plan.round, len(loop.split("probe")))
    answers += (1 + controls) * loop.config.plan.own_answers(plan.new_rows - plan.written_rows)
    rows = (1 + controls) * plan.epochs * (plan.new_rows + plan.replay_rows)
    methods = round_methods(loop, plan)
    took, basis = _minutes(loop, [MethodWork("the loop itself", "", answers, (rows, rows)), *methods])
    teacher, left_out = (None, "") if loop.config.teacher.kind == "offline" else _teacher(loop, plan)
    return RoundForecast(
        written_rows=plan.written_rows,
        training_rows=rows,
        answers=answers,
        minutes=None if took is None else plus(*(one or (0.0, 0.0) for one in took)),
        basis=basis,
        methods=tuple(
            MethodForecast(what=work.what, many=work_words(work, one), minutes=one)
            for work, one in zip(methods, (took or [None] * (len(methods) + 1))[1:], strict=True)
        ),
        teacher=teacher,
        teacher_left_out=left_out,
    )


def _retention_answers(loop: Loop, round_: int) -> int:
    """The candidate's to each retention set, and those of the current adapter that has not answered it yet."""
    current, _ = adapter_before(loop, round_)
    answered = loop.run.stage_path("answers") / current
    known = {name: (answered / f"extra-{name}" / DONE).exists() for name in loop.config.retention_sets}
    return sum(len(loop.extra[name]) * (1 if there else 2) for name, there in known.items())


def round_methods(loop: Loop, plan: RoundPlan) -> list[MethodWork]:
    """What the methods of a round do once its plan is approved, by this run's own rates where it has any."""
    config, trained = loop.config, 2 if wants_control(loop.config, plan.round) else 1
    rows, found = plan.new_rows + plan.replay_rows, list[MethodWork]()
    candidates = len(planned_items(plan, pool_index(loop)))
    unranked = not_ranked(loop, loop.adapter_files(*adapter_before(loop, plan.round)))
    if config.plan.rank != "random" and candidates and unranked is None:
        work = ranking_work(config, config.plan.rank, candidates, len(loop.split("probe")), 1)
        found.append(work._replace(seconds=_ranking_seconds(loop, plan, candidates)))
    if config.plan.unwanted is not None:
        found.append(unwanted_work(config, rows, 1))
    if config.training.weights == "ica":
        work = weights_work(config, rows * trained, trained)
        found.append(work._replace(seconds=_scoring_seconds(loop, plan, rows * trained)))
    if config.plan.targets == "complexity":
        found.append(entropy_work(plan.new_rows * trained, trained))
    return found


def _ranking_seconds(loop: Loop, plan: RoundPlan, candidates: int) -> Range | None:
    """By the seconds a pool item took in earlier rounds."""
    measured = []
    for round_ in range(1, plan.round):
        folder = loop.run.round_stage(round_, RANK)
        seconds = read_json(folder / TIMING).get("seconds") if (folder / TIMING).exists() else None
        scored = read_record(folder / FACTS, RankingFacts).scored if (folder / FACTS).exists() else 0
        if seconds and scored:
            measured.append(candidates * seconds / scored)
    return (min(measured), max(measured)) if measured else None


def _scoring_seconds(loop: Loop, plan: RoundPlan, rows: int) -> Range | None:
    """By the seconds a row's weight took in earlier rounds, in building and in training."""
    measured = []
    for round_ in range(1, plan.round):
        stages = [loop.run.round_stage(round_, stage) for stage in ("build", "train")]
        if all((stage / TIMING).exists() for stage in stages) and (stages[1] / "adapter.json").exists():
            seconds = sum(read_json(stage / TIMING).get("scoring_seconds", 0.0) for stage in stages)
            measured.append(rows * seconds / max(1, read_record(stages[1] / "adapter.json", Adapter).rows))
    return (min(measured), max(measured)) if measured and min(measured) else None


def _minutes(loop: Loop, works: list[MethodWork]) -> tuple[list[Range | None] | None, str]:
    """Of each the minutes, where its own are known, and where the speeds are from; none of any where no speed is."""
    answering, training = (
        _answers_per_second(loop),
        rows_per_second(loop.run.path.glob("round_*/train"), lambda round_: loop.plan(round_).epochs),
    )
    basis = "Speeds are those that this run measured so far; an adapter that answers shorter is faster."
    known = loop.config.student.base in (SMOLLM2, "fake")
    if answering is None or training is None:
        if not known:
            return None, "This run has measured no training yet, and the quickstart's speeds are of another student."
        speeds = {"answering": answering, "training": training}
        what = " and ".join(name for name, speed in speeds.items() if speed is None)
        basis = f"For {what} the quickstart's speed on two CPU cores is taken: this run has measured none yet."
        answering, training = answering or ANSWERS_PER_SECOND, training or ROWS_PER_SECOND
    start = START_SECONDS if known else (0.0, START_SECONDS[1])
    took = [minutes(works[0], answering, training, (0.0, 0.0))]
    took += [minutes(work, answering, training, start) for work in works[1:]]
    left_out = [work.what for work in works if work.unknown]
    basis += f" Not counted: {', '.join(left_out)}." if left_out else ""
    return [one and (round(one[0], 2), round(one[1], 2)) for one in took], basis


def _answers_per_second(loop: Loop) -> Range | None:
    measured = []
    for path in sorted(loop.run.stage_path("answers").glob(f"*/*/{TIMING}")):
        file, seconds = path.with_name("answers.jsonl"), read_json(path).get("seconds")
        if file.exists() and seconds:
            measured.append(count_lines(file) / seconds)
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
