"""Gathers the report of a round and of the final test from the records that the stages wrote.

Pure functions from records to `RoundReport` and `FinalReport`; long texts are cut, rows are counted, a few
failures are chosen to show. Reads no file and decides nothing.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from curriculum.agreement import Repeatability
from curriculum.approval import PlanDecision
from curriculum.control import ControlReport
from curriculum.difficult import DifficultFound
from curriculum.gate import answered_right, skill_changes
from curriculum.loss_curve import divergence_margin, first_loss, last_loss
from curriculum.mastery import Mastery
from curriculum.method_records import MethodsReport
from curriculum.mixture import apportion
from curriculum.ranking import RankingReport
from curriculum.records import Diagnosis, Example, Grade, Rate, SkillLabel, StudentAnswer, Verdict
from curriculum.report import (
    ArmRates,
    ArmsReport,
    ArmVerdicts,
    DroppedCount,
    ExtraReport,
    FailureReport,
    FinalReport,
    MixtureCell,
    ProbeReport,
    RoundReport,
    SkillTokens,
    TrainingReport,
)
from curriculum.report_samples import cut, spread
from curriculum.resampling import drawn_changes
from curriculum.round_records import (
    Adapter,
    Allocation,
    DroppedRow,
    GateDecision,
    GateSkill,
    ItemSignals,
    MissingSkillProfile,
    RoundPlan,
    TrainingRow,
    VerdictCounts,
)
from curriculum.statistics import paired_change, wilson

MAX_FAILURES = 8
"""Failures shown for each round."""


class ArmGrades(NamedTuple):
    """The grades of the three arms of the final test on one split or set, one grade an item.

    Without an accepted adapter the base's grades are the adapter's, too.
    """

    base: Sequence[Grade]
    base_few_shot: Sequence[Grade]
    adapter: Sequence[Grade]


class RoundRecords(NamedTuple):
    """What the stages of one round wrote. Round 0 has no more than a decision and the grades behind it."""

    decision: GateDecision
    grades_before: Sequence[Grade]
    grades_after: Sequence[Grade] = ()
    profile: MissingSkillProfile | None = None
    probe_answers: Sequence[StudentAnswer] = ()
    probe_grades: Sequence[Grade] = ()
    diagnoses: Sequence[Diagnosis] = ()
    plan: RoundPlan | None = None
    approval: PlanDecision | None = None
    allocation: Allocation | None = None
    mastery: Mastery | None = None
    control: ControlReport | None = None
    ranking: RankingReport | None = None
    rows: Sequence[TrainingRow] = ()
    dropped: Sequence[DroppedRow] = ()
    adapter: Adapter | None = None
    losses: Sequence[float] = ()
    phase_steps: Sequence[int] = ()
    gradient_norms: Sequence[float] = ()
    max_grad_norm: float | None = None
    methods: MethodsReport | None = None
    without_gold: Sequence[StudentAnswer] = ()
    """The answers to difficult probe questions that no gold answer was compared with."""
    difficult: DifficultFound | None = None
    repeated: Repeatability | None = None
    drawn: Sequence[ItemSignals] = ()
    """Of the current adapter's drawn answers to the probe; nothing where none were drawn, or where it is the base."""
    drawn_of_base: Sequence[ItemSignals] = ()


def round_report(
    records: RoundRecords, examples: Mapping[str, Example], labels: Mapping[str, SkillLabel]
) -> RoundReport:
    """Gathers a round's report.

    Args:
        records: the round's own records.
        examples: example id → example, for every probe item.
        labels: example id → label, for every item of probe and gate.
    """
    return RoundReport(
        **dict(records.decision),
        verdicts_before=verdict_counts(records.grades_before),
        verdicts_after=verdict_counts(records.grades_after) if records.decision.candidate else None,
        cells=_cells(records, labels),
        probe=_probe(records, records.profile, labels) if records.profile else None,
        plan=records.plan,
        approval=records.approval,
        allocation=records.allocation,
        mastery=records.mastery,
        control=records.control,
        ranking=records.ranking,
        mixture=_mixture(records.rows),
        dropped=_dropped(records.dropped),
        training=_training(records, records.adapter) if records.adapter else None,
        methods=records.methods,
        failures=_failures(records, examples, labels),
    )


def final_report(
    labels: Mapping[str, SkillLabel],
    grades: ArmGrades,
    adapter_name: str,
    opened: str,
    extra: Mapping[str, ArmGrades] | None = None,
    retention: Collection[str] = (),
    old_rules: Mapping[str, ArmGrades] | None = None,
) -> FinalReport:
    """Gathers the report of the final test, and of each extra set by its name.

    Without an accepted adapter pass the name `base`. `retention` names the sets on which a fall rolls back.
    `old_rules` are grades of the same answers to a set by what was right before it was put into words.
    """
    arms = _arms(grades)
    base, adapter = answered_right(grades.base), answered_right(grades.adapter)
    strict_change = paired_change(_strictly_right(grades.base), _strictly_right(grades.adapter))
    both = base.keys() & adapter.keys()
    compared = {i: base[i] for i in both}, {i: adapter[i] for i in both}
    return FinalReport(
        **dict(arms),
        adapter_name=adapter_name,
        format_share=_difference(strict_change.change, arms.change.change),
        skills=skill_changes(*compared, labels),
        cells=skill_changes(*compared, labels, by_difficulty=True),
        opened=opened,
        extra=tuple(
            ExtraReport(
                name=name, retention=name in retention, old_rules=_old_rules(old_rules, name), **dict(_arms(of_set))
            )
            for name, of_set in sorted((extra or {}).items())
        ),
    )


def _old_rules(grades: Mapping[str, ArmGrades] | None, name: str) -> ArmRates | None:
    of_set: dict[str, Sequence[Grade]] = grades[name]._asdict() if grades and name in grades else {}
    return ArmRates(**{arm: _rate(answered_right(of)) for arm, of in of_set.items()}) if of_set else None


def _arms(grades: ArmGrades) -> ArmsReport:
    by_arm: dict[str, Sequence[Grade]] = grades._asdict()
    right = {arm: answered_right(of_arm) for arm, of_arm in by_arm.items()}
    return ArmsReport(
        **{arm: _rate(of_arm) for arm, of_arm in right.items()},
        strict=ArmRates(**{arm: _rate(_strictly_right(of_arm)) for arm, of_arm in by_arm.items()}),
        change=paired_change(right["base"], right["adapter"]),
        change_few_shot=paired_change(right["base_few_shot"], right["adapter"]),
        verdicts=ArmVerdicts(**{arm: verdict_counts(of_arm) for arm, of_arm in by_arm.items()}),
    )


def verdict_counts(grades: Sequence[Grade]) -> VerdictCounts:
    """How many grades have each verdict."""
    return VerdictCounts(**Counter(g.verdict.value for g in grades))


def _rate(right: Mapping[str, bool]) -> Rate:
    return wilson(sum(right.values()), len(right))


def _strictly_right(grades: Sequence[Grade]) -> dict[str, bool]:
    return {g.example_id: g.strict_verdict is Verdict.CORRECT for g in grades if g.verdict is not Verdict.FAILED}


def _difference(strict_gain: float | None, lenient_gain: float | None) -> float | None:
    return None if strict_gain is None or lenient_gain is None else strict_gain - lenient_gain


def _cells(records: RoundRecords, labels: Mapping[str, SkillLabel]) -> tuple[GateSkill, ...]:
    before, after = answered_right(records.grades_before), answered_right(records.grades_after)
    if records.decision.candidate:
        before = {i: right for i, right in before.items() if i in after}
    return skill_changes(before, after, labels, by_difficulty=True)


def _probe(records: RoundRecords, profile: MissingSkillProfile, labels: Mapping[str, SkillLabel]) -> ProbeReport:
    return ProbeReport(
        adapter=profile.adapter,
        overall=profile.overall,
        verdicts=profile.counts,
        skills=profile.skills,
        cells=profile.cells,
        drawn=drawn_changes(records.drawn_of_base, records.drawn, labels),
        repeated=records.repeated,
        difficult=records.difficult,
    )


def _mixture(rows: Sequence[TrainingRow]) -> tuple[MixtureCell, ...]:
    cells = Counter((row.skill, row.origin, row.difficulty) for row in rows)
    return tuple(MixtureCell(skill=s, origin=o, difficulty=d, rows=n) for (s, o, d), n in sorted(cells.items()))


def _dropped(rows: Sequence[DroppedRow]) -> tuple[DroppedCount, ...]:
    reasons = Counter((row.origin, cut(row.reason)) for row in rows)
    return tuple(DroppedCount(origin=o, reason=r, rows=n) for (o, r), n in sorted(reasons.items()))


def _training(records: RoundRecords, adapter: Adapter) -> TrainingReport:
    losses, norms = records.losses, records.gradient_norms
    phases = records.phase_steps or (len(losses),)
    begins = [sum(phases[:at]) for at in range(len(phases))]
    margins = (
        divergence_margin(losses[begin:end])
        for begin, steps in zip(begins, phases, strict=True)
        for end in range(begin + 1, begin + steps + 1)
    )
    limit = records.max_grad_norm
    return TrainingReport(
        rows=adapter.rows,
        training_tokens=adapter.training_tokens,
        target_tokens=adapter.target_tokens,
        skill_tokens=_skill_tokens(records.rows, adapter.training_tokens),
        steps=adapter.steps,
        losses=tuple(losses),
        gradient_norms=tuple(norms),
        phase_steps=tuple(records.phase_steps),
        first_loss=first_loss(losses[: phases[0]]) if losses else None,
        last_loss=last_loss(losses[begins[-1] :]) if losses else None,
        divergence_margin=None if records.methods and records.methods.dft_rows else min(margins, default=None),
        clipped_steps=None if limit is None or not norms else sum(norm > limit for norm in norms),
    )


def _skill_tokens(rows: Sequence[TrainingRow], tokens: int) -> tuple[SkillTokens, ...]:
    """The training tokens split over skills: nobody counted them apart, so each row counts by its characters."""
    lengths: Counter[str] = Counter()
    for row in rows:
        lengths[row.skill] += sum(len(text) for text in (row.question, row.target, *(m.content for m in row.history)))
    if not lengths.total():
        return ()
    return tuple(SkillTokens(skill=skill, tokens=part) for skill, part in sorted(apportion(lengths, tokens).items()))


def _failures(
    records: RoundRecords, examples: Mapping[str, Example], labels: Mapping[str, SkillLabel]
) -> tuple[FailureReport, ...]:
    answers = {answer.id: answer for answer in (*records.probe_answers, *records.without_gold)}
    grades = {grade.answer_id: grade for grade in records.probe_grades}
    by_id = sorted(records.diagnoses, key=lambda d: d.example_id)
    return tuple(
        FailureReport(
            example_id=d.example_id,
            skills=labels[d.example_id].skills,
            difficulty=labels[d.example_id].difficulty,
            question=cut(examples[d.example_id].question),
            answer=cut(answers[d.answer_id].text),
            gold=cut(examples[d.example_id].gold) if d.answer_id in grades else None,
            extracted=None if (found := _extracted(grades.get(d.answer_id))) is None else cut(found),
            verdict=grades[d.answer_id].verdict if d.answer_id in grades else None,
            missing_skills=d.missing_skills,
            diagnosis=cut(d.reason),
        )
        for d in spread(by_id, lambda d: d.missing_skills[0], MAX_FAILURES)
    )


def _extracted(grade: Grade | None) -> str | None:
    return None if grade is None else grade.extracted
