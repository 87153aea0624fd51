import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from curriculum import generator
from curriculum.data_config import GeneratorData, Level, SplitSizes
from curriculum.errors import DataError
from curriculum.generator import UNREPRODUCIBLE, Shortfall, check_tasks, generate_examples, write_examples
from curriculum.safe_tasks import SAFE_TASKS
from curriculum.splits import normalise

SPLITS = SplitSizes(probe=1, gate=1, final=1)
SUMS = [
    Level(difficulty=1, params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}),
    Level(difficulty=3, params={"min_terms": 3, "max_terms": 3, "min_digits": 2, "max_digits": 2}),
]
COMPOSED = {
    "chain_sum+spell_backward": [
        Level(difficulty=2, params={"chain_sum.max_terms": 2, "spell_backward.max_word_len": 4}),
    ]
}


def config(tasks: dict[str, list[Level]], per_task: int = 10) -> GeneratorData:
    return GeneratorData(kind="reasoning_gym", tasks=tasks, per_task=per_task, splits=SPLITS)


def test_items_are_distinct_spread_over_levels_and_tell_where_they_came_from() -> None:
    examples, short = generate_examples(config({"chain_sum": SUMS}, 25), 3)
    assert short == []
    assert Counter(e.difficulty for e in examples) == {1: 13, 3: 12}
    assert len({normalise(e.question) for e in examples}) == len({e.id for e in examples}) == 25
    first = examples[0]
    assert first.grader == "reasoning_gym" and first.skills == ("chain_sum",)
    assert first.source.startswith("reasoning_gym:chain_sum:level1:seed=")
    assert first.metadata["answer_kind"] == "number"
    assert first.metadata["task"] == "chain_sum"
    assert first.metadata["entry"]["answer"] == first.gold  # type: ignore[index,call-overload]


def test_another_seed_gives_other_items() -> None:
    one, two = (generate_examples(config({"chain_sum": SUMS}), seed)[0] for seed in (0, 1))
    assert {e.id for e in one} != {e.id for e in two}


SCRIPT = """
import sys
from curriculum.data_config import GeneratorData, Level
from curriculum.generator import UNREPRODUCIBLE, generate_examples
from curriculum.safe_tasks import SAFE_TASKS
for task in sorted(SAFE_TASKS - UNREPRODUCIBLE):
    data = GeneratorData(kind="reasoning_gym", tasks={task: [Level(difficulty=1)]}, per_task=6,
                         splits={"probe": 1, "gate": 1, "final": 1})
    once, again = generate_examples(data, 5), generate_examples(data, 5)
    assert once == again, task
    for example in once[0]:
        print("ITEM", example.model_dump_json())
"""


@pytest.mark.real
def test_every_safe_task_gives_the_same_bytes_in_every_process_and_passes_its_own_scorer() -> None:
    from reasoning_gym import get_score_answer_fn

    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    items = [json.loads(line[line.index(b"{") :]) for line in outputs[0].splitlines() if b"ITEM {" in line]
    assert {item["metadata"]["task"] for item in items} == SAFE_TASKS - UNREPRODUCIBLE
    for item in items:
        score = get_score_answer_fn(item["metadata"]["task"])
        assert score(item["gold"], item["metadata"]["entry"]) == 1.0, item["source"]


def test_an_exhausted_level_is_reported_short() -> None:
    levels = [Level(difficulty=1, params={"min_digits": 1, "max_digits": 1, "min_terms": 2, "max_terms": 2})]
    examples, short = generate_examples(config({"products": levels}, 200), 0)
    assert short == [Shortfall(task="products", difficulty=1, wanted=200, got=len(examples))]
    assert 80 < len(examples) <= 100


def test_a_level_without_any_question_of_its_own_is_refused() -> None:
    tiny: dict[str, Any] = {"min_value": 7, "max_value": 7}
    levels = [Level(difficulty=1, params=tiny), Level(difficulty=2, params=tiny)]
    with pytest.raises(DataError, match=r"prime_factorization, difficulty 2: expected 5 distinct questions, got 0"):
        generate_examples(config({"prime_factorization": levels}), 0)


def test_answers_are_read_alike_over_a_level() -> None:
    examples, _ = generate_examples(
        config({"prime_factorization": [Level(difficulty=1, params={"max_value": 60})]}, 30), 0
    )
    assert any(e.gold.isdigit() for e in examples) and any("×" in e.gold for e in examples)
    assert {e.metadata["answer_kind"] for e in examples} == {"text"}


def test_written_items_are_fresh_and_reproducible() -> None:
    data = config({"chain_sum": SUMS}, 40)
    taken = {normalise(e.question) for e in generate_examples(data, 0)[0]}
    written = write_examples(data, "chain_sum", 3, 30, 9, taken)
    assert len(written) == 30
    assert {e.difficulty for e in written} == {3}
    assert not taken & {normalise(e.question) for e in written}
    assert write_examples(data, "chain_sum", 3, 30, 9, taken) == written
    assert write_examples(data, "chain_sum", 3, 30, 10, taken) != written


def test_an_exhausted_generator_writes_fewer() -> None:
    data = config({"products": [Level(difficulty=1, params={"max_digits": 1, "max_terms": 2})]}, 200)
    taken = {normalise(e.question) for e in generate_examples(data, 0)[0]}
    assert len(write_examples(data, "products", 1, 50, 1, taken)) < 20


def test_a_composed_task_asks_both_parts_and_teaches_both_skills() -> None:
    data = config(COMPOSED, 12)
    assert check_tasks(data) == []
    examples, _ = generate_examples(data, 0)
    assert len(examples) == 12
    for example in examples:
        parts = example.metadata["entry"]["metadata"]["parts"]  # type: ignore[index,call-overload]
        assert example.grader == "exact" and example.skills == ("chain_sum", "spell_backward")
        assert example.metadata["answer_kind"] == "text"
        assert example.gold == f"{parts[0]['answer']}, {parts[1]['answer']}"
        assert all(part["question"].strip() in example.question for part in parts)
    written = write_examples(data, "spell_backward", 2, 5, 0, {normalise(e.question) for e in examples})
    assert len(written) == 5 and not {e.id for e in written} & {e.id for e in examples}


def test_a_skill_of_two_composed_tasks_is_taught_by_both() -> None:
    data = config({**COMPOSED, "gcd+spell_backward": [Level(difficulty=2)], "gcd": [Level(difficulty=2)]})
    both = write_examples(data, "spell_backward", 2, 7, 0, set())
    assert Counter(e.skills for e in both) == {("chain_sum", "spell_backward"): 3, ("gcd", "spell_backward"): 4}
    assert {e.skills for e in write_examples(data, "gcd", 2, 4, 0, set())} == {("gcd",)}


def test_an_unknown_skill_or_difficulty_cannot_be_written() -> None:
    data = config({"chain_sum": SUMS})
    with pytest.raises(DataError, match=r"difficulty 2 for `chain_sum`, got \[1, 3\]"):
        write_examples(data, "chain_sum", 2, 1, 0, set())
    with pytest.raises(DataError, match=r"for `gcd`, got \[\]"):
        write_examples(data, "gcd", 1, 1, 0, set())


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        ({"no_such_task": [Level(difficulty=1)]}, "allowed are .*chain_sum"),
        ({"gsm_symbolic": [Level(difficulty=1)]}, "`gsm_symbolic` is no task that may be used"),
        ({"ransom_note": [Level(difficulty=1)]}, "`ransom_note` is no task that may be used"),
        ({"chain_sum": []}, "levels of different difficulty, got \\[\\]"),
        ({"chain_sum": [SUMS[0], SUMS[0]]}, "got \\[1, 1\\]"),
        ({"chain_sum+chain_sum": [Level(difficulty=1)]}, "two different ones"),
        ({"gcd+lcm+chain_sum": [Level(difficulty=1)]}, "two different ones"),
        ({"gcd": [Level(difficulty=1, params={"seed": 3})]}, "unknown parameter.* seed: allowed are .*max_value"),
        ({"gcd+lcm": [Level(difficulty=1, params={"max_value": 3})]}, "allowed are .*gcd.max_value"),
        ({"gcd": [Level(difficulty=1, params={"min_value": 9, "max_value": 3})]}, "refuses the parameters"),
        ({"gcd": [Level(difficulty=1, params={"max_value": "many"})]}, "refuses the parameters .*TypeError"),
    ],
)
def test_bad_tasks_are_named_with_what_is_allowed(tasks: dict[str, list[Level]], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        generate_examples(config(tasks), 0)


def test_all_faults_are_reported_at_once() -> None:
    faults = check_tasks(config({"nope": [Level(difficulty=1)], "gcd": [Level(difficulty=1, params={"x": 1, "y": 2})]}))
    assert len(faults) == 2
    assert "gcd, difficulty 1" in faults[0] and "x, y" in faults[0]
    assert "nope" in faults[1]


def test_a_seed_at_which_a_task_divides_by_zero_has_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    from reasoning_gym.arithmetic.chain_sum import ChainSumDataset

    whole = ChainSumDataset.__getitem__

    def breaks_at_two(self: ChainSumDataset, index: int) -> object:
        return whole(self, index // 0 if index == 2 else index)

    level = Level(difficulty=1)
    expected = [item for index, item in enumerate(generator._items("chain_sum", level, 7, 6)) if index != 2]
    monkeypatch.setattr(ChainSumDataset, "__getitem__", breaks_at_two)
    assert list(generator._items("chain_sum", level, 7, 6)) == expected and len(expected) == 5


@pytest.mark.parametrize("brackets", [True, False])
def test_an_item_with_a_wrong_gold_answer_has_no_question(brackets: bool) -> None:
    """Without brackets the library computes from left to right: 985 + 384 * 129 would be 176601."""
    params = {"operators": ["+", "-", "*"], "min_terms": 3, "allow_parentheses": brackets}
    items = list(generator._items("basic_arithmetic", Level(difficulty=3, params=params), 3, 80))
    assert 20 < len(items) <= 80 and (brackets or len(items) < 80)
    for item in items:
        expression = item.metadata["entry"]["metadata"]["expression"]
        assert int(item.gold) == eval(expression)  # Python's own precedence
