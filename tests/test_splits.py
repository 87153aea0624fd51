from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import training_row

from curriculum.data_config import SplitSizes
from curriculum.errors import DataError, LeakError
from curriculum.records import Example, Message
from curriculum.splits import SplitResult, assert_no_leak, leaks, normalise, split_examples

SIZES = SplitSizes(probe=10, gate=10, final=10)


def make(question: str, number: int = 0, *, source: str = "", **other: object) -> Example:
    return Example.make(
        question=question,
        gold=str(number),
        grader="numeric",
        source=source or f"rows.jsonl:{number}",
        **other,  # type: ignore[arg-type]
    )


def word(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number))


def split_of(result: SplitResult) -> dict[str, str | None]:
    return {e.id: e.split for e in result.examples}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What is 12+7?", "what  is 12 + 7"),
        ("Tom's push-ups: 1,000!", "tom s push ups 1000"),
        ("It costs $ 5.", "It costs 5"),
        ("3 × 4 − 2", "3*4-2"),
        ("ＡＢＣ ½", "abc 1/2"),
        ("a 5-year plan", "A 5 year plan"),
    ],
)
def test_normalise_forgets_case_spacing_and_punctuation(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What is 12 + 7?", "What is 12 + 8?"),
        ("What is 12 + 7?", "What is 12 - 7?"),
        ("5", "-5"),
        ("0.5", "5"),
        ("1.5", "15"),
        ("1, 2", "12"),
        ("(3 + 4) * 2", "3 + (4 * 2)"),
        ("20 %", "20"),
        ("1 🍎", "1 🍐"),
        ("कि", "का"),
    ],
)
def test_normalise_keeps_what_makes_another_question(left: str, right: str) -> None:
    assert normalise(left) != normalise(right)


STORY = (
    "Amanda received $50 as a gift. She plans to buy two cassette tapes that cost $9 each and a headphone set that "
    "costs $25. How much money will she have left?"
)


BUS = (
    "There were 40 people at the station in the early morning. Two buses took half of them to the old town. Then 9 "
    "more people came to the station on foot. How many people were left?"
)


@pytest.mark.parametrize(
    ("candidate", "held_out", "reason"),
    [
        (STORY.upper().replace(".", " .  "), STORY, "exact duplicate"),
        (STORY.replace("Amanda", "Josie"), STORY, "near duplicate"),
        (STORY.replace("$25", "$26"), STORY, None),
        (STORY.replace("$9", "$25").replace("set that costs $25", "set that costs $9"), STORY, None),
        (STORY.replace("Amanda", "Josie").replace("She plans to buy", "And she would like"), STORY, "near duplicate"),
        (BUS.replace("Two", "Three"), BUS, None),
        (". ".join([BUS.split(". ")[i] for i in (1, 0, 2, 3)]), BUS, "near duplicate"),
        ("Two buses leave. At night 9 come back. In the morning half of 40 people wait. How many leave?", BUS, None),
        (f"Here is what a quiz of last year asked its guests. {STORY} Write down every step.", STORY, "near duplicate"),
        (STORY, f"Here is what a quiz of last year asked its guests. {STORY} Write down every step.", "near duplicate"),
        (STORY[: STORY.index("How much")], STORY, "near duplicate"),
        (f"Here is what a quiz asked. {STORY.replace('$25', '$26')} Write down every step.", STORY, None),
        ("What is 12 + 7?", "First find 3 * 4. What is 12 + 7?", None),
        ("Please spell this: cat", "Spell this: cat", "near duplicate"),
        ("Spell this: cat", "Spell this: the cat", "near duplicate"),
        ("Spell this: the", "Spell this: a", None),
        ("Spell this: cat", "Spell this: dog", None),
    ],
)
def test_what_counts_as_the_same_question(candidate: str, held_out: str, reason: str | None) -> None:
    found = leaks([make(candidate, 1)], [make(held_out, 2)])
    assert [text.split(" of ")[0] for text in found.values()] == ([reason] if reason else [])


def test_generated_questions_that_differ_in_one_word_are_different() -> None:
    template = "Your task is to count how many legs there are in total when given a list of animals: 3 dogs and 2 {}."
    cats, ducks = (
        make(template.format(animal), n, source=f"reasoning_gym:leg_counting:level1:seed=1:index={n}")
        for n, animal in enumerate(["cats", "ducks"])
    )
    assert leaks([cats], [ducks]) == {}
    longer = make(f"Read this. {cats.question}", 4, source="reasoning_gym:other")
    assert leaks([longer], [cats]) == {}, "two generated questions"
    rewritten = make(cats.question.replace("Your task", "Our task"), 3)
    assert "near duplicate" in leaks([rewritten], [cats])[rewritten.id]


def test_a_question_with_another_history_is_another_question() -> None:
    later = make("And twice that?", 1, history=(Message(role="user", content="What is 4?"),))
    assert leaks([later], [make("And twice that?", 2)]) == {}
    assert leaks([later], [make("and twice that", 3, history=(Message(role="user", content="what is 4"),))])


rows = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from("xyz"), st.integers(1, 3), st.integers(0, 150)),
    min_size=60,
    max_size=150,
)


def examples_from(drawn: list[tuple[int, str, int, int]]) -> list[Example]:
    """Rows with repeated questions and with groups of a few rows."""
    return [
        make(f"Question {word(q)}?", place, skills=(skill,), difficulty=level, group=f"g{group}")
        for place, (q, skill, level, group) in enumerate(drawn)
    ]


@settings(deadline=None, max_examples=60)
@given(rows, st.integers(0, 3), st.randoms(use_true_random=False))
def test_groups_stay_whole_counts_add_up_and_order_does_not_matter(
    drawn: list[tuple[int, str, int, int]], seed: int, random: object
) -> None:
    examples = examples_from(drawn)
    try:
        result = split_examples(examples, SIZES, seed)
    except DataError as error:
        assert "data.splits" in str(error)
        return
    splits = defaultdict(set)
    for example in result.examples:
        splits[example.group].add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert sum(result.counts.values()) == len(examples) == len(result.examples) + len(result.dropped)
    assert len({normalise(e.question) for e in result.examples}) == len(result.examples)
    for split in ("probe", "gate", "final"):
        assert 9 <= result.counts[split] <= 10
    random.shuffle(examples)  # type: ignore[attr-defined]
    assert split_examples(examples, SIZES, seed) == result


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(8, 60), min_size=1, max_size=6), st.integers(0, 5))
def test_sizes_are_exact_and_skills_nearly_equal(counts: list[int], seed: int) -> None:
    examples = [
        make(f"{word(skill)} of {word(n)}", n, skills=(f"s{skill}",), difficulty=1 + n % 2, source=f"f:{skill}-{n}")
        for skill, count in enumerate(counts)
        for n in range(count)
    ]
    sizes = SplitSizes(probe=len(counts), gate=2 * len(counts), final=len(counts))
    result = split_examples(examples, sizes, seed)
    for split, size in (("probe", sizes.probe), ("gate", sizes.gate), ("final", sizes.final)):
        per_skill = Counter(e.skills[0] for e in result.examples if e.split == split)
        assert per_skill.total() == size
        # At least 8 of each skill: none is too small for its equal share.
        assert all(abs(per_skill[f"s{skill}"] - size / len(counts)) <= 2 for skill in range(len(counts)))


def test_a_tiny_skill_keeps_half_for_the_pool() -> None:
    examples = [make(f"big {word(n)}", n, skills=("big",)) for n in range(200)]
    examples += [make(f"tiny {word(n)}", n, skills=("tiny",)) for n in range(6)]
    result = split_examples(examples, SIZES, 0)
    tiny = Counter(e.split for e in result.examples if e.skills == ("tiny",))
    assert tiny == {"probe": 1, "gate": 1, "final": 1, "pool": 3}


def test_other_seeds_give_other_splits() -> None:
    examples = [make(f"q {word(n)}", n) for n in range(60)]
    assert split_of(split_examples(examples, SIZES, 0)) != split_of(split_examples(examples, SIZES, 1))


def test_the_pool_is_capped_and_the_rest_counted() -> None:
    examples = [make(f"q {word(n)}", n) for n in range(60)]
    result = split_examples(examples, SplitSizes(probe=5, gate=5, final=5, pool=20), 0)
    assert result.counts == {"pool": 20, "probe": 5, "gate": 5, "final": 5, "the pool is full": 25}


def test_duplicates_name_the_row_they_repeat() -> None:
    examples = [make(f"q {word(n)}", n) for n in range(40)]
    copies = [make(f"Q {word(n)}!", 100 + n) for n in range(3)]
    result = split_examples(examples + copies, SIZES, 0)
    assert result.counts["exact duplicate"] == 3
    kept = {e.id for e in result.examples}
    assert all(d.duplicate_of in kept and d.example_id not in kept for d in result.dropped)


def test_too_few_items_says_how_many_there_are() -> None:
    with pytest.raises(DataError, match=r"more than 30 distinct items .* got 30 .*lower the sizes"):
        split_examples([make(f"q {word(n)}", n) for n in range(30)], SIZES, 0)


def test_groups_too_large_for_the_splits_are_refused() -> None:
    examples = [make(f"q {word(n)}", n, group=f"g{n // 25}") for n in range(100)]
    with pytest.raises(DataError, match=r"4 groups of up to 25 items"):
        split_examples(examples, SIZES, 0)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=20), st.data())
def test_a_respaced_recased_copy_is_always_a_leak(questions: list[str], data: st.DataObject) -> None:
    question = data.draw(st.sampled_from(questions))
    copy = make(f"\n {question}  ", 7)
    assert set(leaks([copy], [make(q, 1) for q in questions])) == {copy.id}


def test_a_training_set_that_touches_a_held_out_split_raises() -> None:
    held_out = [make(f"What is {n} + {n}?", n) for n in range(5)]
    row = training_row(id="row1", question="what is 3+3")
    with pytest.raises(LeakError, match=r"1 row.*row row1: exact duplicate"):
        assert_no_leak([row], held_out)
    assert_no_leak([row.model_copy(update={"question": "what is 3+4"})], held_out)
    assert leaks([row.model_copy(update={"question": "what is 3+4"})], held_out) == {}
