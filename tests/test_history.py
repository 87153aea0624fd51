"""What the controller reads from the run directory; the loop is a stand-in with the examples and labels of the test."""

from types import SimpleNamespace
from typing import Any

import pytest

from agents.history import pool_index, pool_sizes
from curriculum.records import Example, SkillLabel, Split


def example(name: str, split: Split) -> Example:
    return Example.make(question=name, gold=name, grader="exact", source="test").model_copy(update={"split": split})


@pytest.fixture
def loop() -> Any:
    splits: dict[str, Split] = {"a": "pool", "b": "pool", "c": "pool", "d": "probe"}
    examples = {e.id: e for e in (example(name, split) for name, split in splits.items())}
    a, b, _, d = examples
    skills = {a: ("add",), b: ("add", "sort"), d: ("sort",)}
    labels = {
        id_: SkillLabel(example_id=id_, teacher="t", prompt_hash="h", skills=s, difficulty=len(s), reason="")
        for id_, s in skills.items()
    }
    return SimpleNamespace(examples=examples, labels=labels)


def test_the_pool_is_what_is_in_the_split_and_has_a_label(loop: Any) -> None:
    assert sorted(pool_index(loop).skills) == [("add",), ("add", "sort")]


def test_pool_sizes_count_an_example_for_each_of_its_skills_at_its_difficulty(loop: Any) -> None:
    assert pool_sizes(loop) == {"add": {1: 1, 2: 1}, "sort": {2: 1}}
