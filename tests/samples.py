"""Records for tests that care about a few of their fields; the others have values that mean nothing."""

from typing import Any

from curriculum.records import Example, Grade, Sampling, StudentAnswer, Verdict
from curriculum.round_records import Allocation, Rule, RuleShares, SkillAllocation, TrainingRow


def training_row(**fields: Any) -> TrainingRow:
    """A pool row of round 1 with these fields."""
    plain: dict[str, Any] = {
        "id": "row",
        "example_id": "example",
        "round": 1,
        "origin": "pool",
        "skill": "s",
        "skills": ("s",),
        "difficulty": 1,
        "repeat": 0,
        "weight": 1.0,
        "layer": "missing skill share",
        "question": "q",
        "target": "t",
        "source": "test",
    }
    return TrainingRow(**plain | fields)


def grade(example_id: str, adapter: str, verdict: Verdict) -> Grade:
    """Of an answer by the exact grader, the same by the strict extraction."""
    return Grade(
        answer_id=f"{adapter}-{example_id}",
        example_id=example_id,
        adapter=adapter,
        grader="exact",
        verdict=verdict,
        strict_verdict=verdict,
        extracted=None,
        strict_extracted=None,
    )


def student_answer(example: Example, text: str, **fields: Any) -> StudentAnswer:
    """The base's answer to an example, ended by itself, with these fields."""
    plain: dict[str, Any] = {
        "adapter": "base",
        "sampling": Sampling(max_new_tokens=8),
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "completion_tokens": 1,
    }
    return StudentAnswer(example_id=example.id, text=text, **plain | fields)


def allocation(rule: Rule, **shares: float) -> Allocation:
    """What `rule` would give each skill, the other rules nothing; curves expect 10 points of each."""
    none = {"even": 0.0, "failures": 0.0, "learnability": 0.0, "expected_gain": 0.0}
    curve: dict[str, Any] = {"status": "open", "rows": 0, "flat": 0.2, "gain": 0.1, "gain_low": 0, "gain_high": 0.2}
    parts = [
        SkillAllocation(skill=skill, shares=RuleShares(**none | {rule: share}), **curve)
        for skill, share in sorted(shares.items())
    ]
    return Allocation(round=1, rule=rule, points=1, decay=0, skills=tuple(parts))
