"""A report with every part filled, and the same with hostile text in every field that takes text."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from samples import allocation
from test_control import report_with
from test_report import HOSTILE
from test_teacher_cost import reported

from curriculum.agreement import Estimate, Repeatability
from curriculum.judging import JudgeAgreement, JudgeReport
from curriculum.mastery import Mastery, SkillMastery
from curriculum.records import Verdict
from curriculum.report import RunReport
from curriculum.report_items import FailedAnswer, FailedItem, FailedItems, SkillFailures
from curriculum.report_origin import AdapterReport, Ancestor, Reproduction, ServedWeights, Work
from curriculum.report_rows import TaughtRow, TaughtRows
from curriculum.resampling import DrawnChange
from curriculum.round_records import RetentionPart
from curriculum.serving_records import Canary
from curriculum.statistics import wilson

R = TypeVar("R", bound=BaseModel)
WORST = HOSTILE + (
    " </script></style></title></textarea><svg onload=alert(3)><style>@import 'http://evil.example/x.css'</style>"
    "<iframe src=http://evil.example></iframe><base href=http://evil.example/><meta http-equiv=refresh content=0> "
    "- !!python/object/apply:os.system ['true'] &a *a : {} \u2066\u2069\u200b\ufeff\u2028 "
    "${7*7} `${alert(4)}` \\u003cb\\u003e "
    "url(http://evil.example/y.png) 'single' &lt;b&gt; \x9b31m \x07"
)
"""What breaks pages, YAML, terminals and the order of letters."""
KEY = WORST.replace("\ud800", "")
"""The same as a key of a map, which JSON takes without a lone surrogate only."""
SKILLS = ("add", "gcd", "lcm")
STATES = ("missing", "learning", "mastered", "slipped")


def whole_report(items: int = 30) -> RunReport:
    """A finished run with something in every section, and so many failed items."""
    report = report_with(35, 20, 0.02)
    change = report.rounds[1].change
    assert change is not None and report.rounds[1].probe is not None and report.final is not None
    part = RetentionPart(
        kind="set", name="basics", before=wilson(18, 20), after=wilson(9, 20), change=change, p_alone=0.01,
        p_value=0.02, fell=True, replay=("add",),
    )  # fmt: skip
    states = tuple(
        SkillMastery(skill=skill, state=state, since=1, accuracy=wilson(3, 7), first=0.1, due=3 if at == 2 else None)
        for at, (skill, state) in enumerate(zip((*SKILLS, "x"), STATES, strict=True))
    )
    repeated = Repeatability(
        asked=9, answered=8, same=wilson(6, 8), jaccard=Estimate(n=8, value=0.8, low=0.5, high=0.9)
    )
    drawn = DrawnChange(skill="add", items=12, before=0.2, after=0.4, change=0.2, low=0.1, high=0.3, p_value=0.02)
    last = report.rounds[1].model_copy(
        update={
            "retention": (part,),
            "mastery": Mastery(round=1, skills=states),
            "allocation": allocation("failures", add=0.5, gcd=0.5),
            "probe": report.rounds[1].probe.model_copy(update={"repeated": repeated, "drawn": (drawn,)}),
        }
    )
    agreed = JudgeAgreement(
        against="numeric", agree=wilson(7, 9), kappa=repeated.jaccard, only_judge=1, only_other=1, no_verdict=1
    )
    return report.model_copy(
        update={
            "rounds": (report.rounds[0], last),
            "teaching": reported(15).teaching,
            "judging": JudgeReport(answers=9, unsure=1, failed=1, agreement=(agreed,)),
            "notes": ("one", "two", "three", "four"),
            "failed": _failed(items),
            "taught": (_taught(),),
            "adapters": _adapters(),
            "work": Work(all_answers=9, rows=4, forecast_answers=12, forecast_rows=8, forecast_minutes=(1, 2)),
            "reproduction": Reproduction(
                commands=("git checkout 0", "tutelage run x"),
                python="3.11",
                libraries={"torch": "2", KEY: "1"},
                uncommitted_changes=True,
                ancestors=(Ancestor(run="earlier", round=1, changed={KEY: (1, "b")}),),
                config="seed: 0\n",
            ),
        }
    )


def _failed(count: int) -> FailedItems:
    outcomes: Any = ("fixed", "open", "lost", "asked once")
    items = tuple(
        FailedItem(
            example_id=f"i{n}",
            skills=(SKILLS[n % 3], SKILLS[(n + 1) % 3])[: 1 + n % 2],
            difficulty=1 + n % 5,
            question=f"question {n}?",
            gold=f"gold {n}" if n % 7 else None,
            outcome=outcomes[n % 4],
            answers=(
                FailedAnswer(
                    adapter="base", round=0, verdict=Verdict.WRONG if n % 7 else None, answer=f"answer {n}",
                    extracted="0", missing_skills=(SKILLS[n % 3],), diagnosis="does not carry",
                ),
                FailedAnswer(adapter="run-r01", round=1, verdict=Verdict.CORRECT),
            ),
        )
        for n in range(count)
    )  # fmt: skip
    by_skill = [
        SkillFailures(skill=s, items=10 - n, fixed=3, open=3, lost=2, asked_once=1) for n, s in enumerate(SKILLS)
    ]
    return FailedItems(items=count + 5, by_skill=tuple(by_skill), shown=items)


def _taught() -> TaughtRows:
    rows = tuple(
        TaughtRow(
            skill=skill, origin=origin, difficulty=2, layer="missing skill share", round=1, weight=1.5, repeat=1,
            source="file:1", question="what?", target="Answer: that",
        )
        for skill in SKILLS
        for origin in ("pool", "written", "replay")
    )  # fmt: skip
    return TaughtRows(round=1, rows=40, shown=rows)


def _adapters() -> tuple[AdapterReport, ...]:
    canary = Canary(verdict="same", prompts=2, tokens=30, served=0.0, others={KEY: 0.2})
    served = ServedWeights(engine="vllm 1", dtype="float32", how="merged", files={KEY: "ab"}, canary=canary)
    return (
        AdapterReport(name="base", round=0, start=None, became="base", files={"weights": "00"}),
        AdapterReport(
            name="run-r01", round=1, start="base", became="accepted", rows=4, training_set_hash="11",
            files={KEY: "22"}, served=served,
        ),
    )  # fmt: skip


def hostile(record: R) -> R:
    """The same record with hostile text for every text, equal for equal ones, but where only our words may stand."""
    known: dict[str, str] = {}

    def made(value: Any) -> Any:
        if isinstance(value, str):
            return known.setdefault(value, f"{WORST} {len(known)}")
        if isinstance(value, dict):
            return {key: made(inner) for key, inner in value.items()}
        return [made(inner) for inner in value] if isinstance(value, list) else value

    plain = record.model_dump(mode="json")
    changed = made(plain)
    for _ in range(9):
        try:
            return type(record).model_validate(changed)
        except ValidationError as error:
            for fault in error.errors():
                _put_back(changed, plain, fault["loc"])
    raise AssertionError("some field takes neither text")


def _put_back(changed: Any, plain: Any, place: tuple[int | str, ...]) -> None:
    *before, last = place
    for step in before:
        changed, plain = changed[step], plain[step]
    changed[last] = plain[last]
