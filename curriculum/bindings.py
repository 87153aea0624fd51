"""Randomised bindings: a row declares words of its own for what its question's operators or its answers are called.

Takes questions with their gold answers and what is taught of them; returns both in the declared words, with the table
that maps them back. Deterministic: the same key gives the same words. Asks nobody, and changes no meaning.

Source: Lin et al. 2025, Debunk the Myth of SFT Generalization (arXiv 2510.00237): every training item gets random
words for its actions, declared in the prompt, and the gold answer is mapped through the same table. Operators and
closed sets of answers in the place of actions are ours.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import floor
from typing import NamedTuple

from pydantic import JsonValue

from curriculum.binding_words import HELD_OUT, TRAINING
from curriculum.extraction import ANSWER_MARK
from curriculum.method_records import Binding, BindingsReport
from curriculum.numerals import parse_number
from curriculum.records import Example, content_id
from curriculum.round_records import TrainingRow

MOST_LABELS = 6
"""Of a closed set of answers."""
ITEMS_A_LABEL = 5
"""Pool items for each answer of a set, on average at least: fewer do not show that it is closed."""
MOST_LABEL = 40
"""Characters of an answer."""
BINDABLE = ("exact", "choice", "reasoning_gym")
"""Graders whose answers may be of a closed set: mapped answers are compared as by `exact`."""
META = "binding"
"""The key of an extra item's table in its metadata."""

# What an operator stands between: a digit, a closed bracket or a letter alone, and the same with a sign or brackets.
_LEFT = r"(?<=[0-9a-zA-Z)])(?<![a-zA-Z]{2})"
_RIGHT = r"(?=-?\(*-?(?:[0-9]|[a-zA-Z](?![a-zA-Z])))"
_OPERATOR = re.compile(rf"{_LEFT}(?: [-+*/×÷−] |(?<!\*)\*(?!\*)){_RIGHT}")
_LEFT_OVER = re.compile(r" [-+*/×÷−^] |\*|[0-9)a-z][+×÷^]|[0-9)] ?[-/−] ?[0-9(]")
"""What may be an operator and was not read as one: such a text is not bound."""


class Bound(NamedTuple):
    """A question with what is taught of it, in the words it declares."""

    binding: Binding
    question: str
    targets: tuple[str, ...]
    gold: str


def bind(
    question: str, gold: str, targets: Sequence[str], labels: Sequence[str], words: Sequence[str], key: str
) -> Bound | None:
    """Operators between numbers of the question in words, else its answer; none where there is nothing to bind.

    A worked solution goes with its question: its operators are put into the same words, and where one cannot be
    (it has others, or stands otherwise) nothing is bound. With answers in words nothing is bound either where the
    solution names one of the answers before its last line.

    Args:
        question: of one turn.
        gold: the right answer.
        targets: what is taught, each ending in the line of the answer; may be empty.
        labels: the closed set of answers that `gold` is of; empty where it is of none.
        words: to draw from; those that occur in any of the texts are left out.
        key: what the draw is seeded by.
    """
    texts = "\n".join([question, gold, *targets, *labels]).casefold()
    free = [word for word in words if word not in texts]
    drawn = random.Random(content_id(["binding", key]))
    found = sorted(set(_OPERATOR.findall(question)))
    meanings = [m.strip() for m in found]
    if found and len(set(meanings)) == len(meanings) <= len(free):
        table = dict(sorted(zip(drawn.sample(free, len(found)), found, strict=True)))
        made = Binding(kind="operators", words=table)
        mapped = [_in_words(text, made) for text in (question, *targets)]
        if not _OPERATOR.search(gold) and None not in mapped:
            shown = [text for text in mapped if text is not None]
            return Bound(made, declaration(made) + shown[0], tuple(shown[1:]), gold)
    if gold in labels and len(labels) <= len(free):
        made = Binding(kind="labels", words=dict(sorted(zip(drawn.sample(free, len(labels)), labels, strict=True))))
        word = next(w for w, meaning in made.words.items() if meaning == gold)
        bodies = [text.rpartition(f"{ANSWER_MARK} {gold}") for text in targets]
        if all(mark and not end and not _names(body, labels) for body, mark, end in bodies):
            taught = tuple(f"{body}{ANSWER_MARK} {word}" for body, *_ in bodies)
            return Bound(made, declaration(made) + question, taught, word)
    return None


def declaration(binding: Binding) -> str:
    """The line before the question that says what its words mean."""
    if binding.kind == "operators":
        parts = [f"`{word}` means {meaning.strip()}" for word, meaning in binding.words.items()]
        return f"In this question, {' and '.join(parts)}.\n"
    parts = [f"`{word}` for {meaning}" for word, meaning in binding.words.items()]
    return f"In this question, write {' and '.join(parts)} as the answer.\n"


def unbind(bound: Bound) -> tuple[str, str, tuple[str, ...]]:
    """The question, the gold answer and the targets as they were before."""
    words, question = bound.binding.words, bound.question.removeprefix(declaration(bound.binding))
    if bound.binding.kind == "labels":
        gold = words[bound.gold]
        texts = tuple(text.removesuffix(bound.gold) + gold for text in bound.targets)
        return question, gold, texts
    question, *texts_before = (_unworded(text, words) for text in (question, *bound.targets))
    return question, bound.gold, tuple(texts_before)


def _unworded(text: str, words: Mapping[str, str]) -> str:
    for word, meaning in words.items():
        text = text.replace(f" {word} ", meaning)
    return text


def _in_words(text: str, binding: Binding) -> str | None:
    """A text with its operators in words; none where it has others, or what may be one."""
    words = {meaning: word for word, meaning in binding.words.items()}
    if not {*_OPERATOR.findall(text)} <= words.keys():
        return None
    made = _OPERATOR.sub(lambda match: f" {words[match[0]]} ", text)
    return None if _LEFT_OVER.search(made) else made


def _names(text: str, labels: Iterable[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text, re.IGNORECASE) for label in labels)


def label_sets(examples: Iterable[tuple[Example, Sequence[str]]]) -> dict[str, tuple[str, ...]]:
    """Skill → its answers, sorted, where these are few and come again and again, such as yes and no.

    Args:
        examples: each with its skills.
    """
    golds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example, skills in examples:
        for skill in skills:
            golds[skill][example.gold if example.grader in BINDABLE else "\n"] += 1
    closed = {}
    for skill, of in golds.items():
        enough = 1 < len(of) <= MOST_LABELS and of.total() >= ITEMS_A_LABEL * len(of)
        if enough and all(map(_is_label, of)):
            closed[skill] = tuple(sorted(of))
    return closed


def _is_label(gold: str) -> bool:
    plain = len(gold) <= MOST_LABEL and "\n" not in gold and "`" not in gold and any(map(str.isalpha, gold))
    return plain and parse_number(gold) is None


def may_be_bound(example: Example) -> bool:
    """Whether a pool item has operators to bind, or an answer that may turn out to be of a closed set."""
    labels = (example.gold,) if example.grader in BINDABLE and _is_label(example.gold) else ()
    return not example.history and bind(example.question, example.gold, (), labels, TRAINING, "") is not None


def labels_of(example: Example, skills: Iterable[str], sets: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The closed set that an example's answer is of; empty if it is of none."""
    if example.grader not in BINDABLE:
        return ()
    return next((sets[skill] for skill in sorted(skills) if example.gold in sets.get(skill, ())), ())


def bind_row(row: TrainingRow, example: Example, sets: Mapping[str, Sequence[str]], seed: int) -> TrainingRow | None:
    """A training row in words of its own; none where nothing can be bound, as with earlier turns."""
    labels = labels_of(example, row.skills, sets)
    made = bind(row.question, example.gold, row.targets, labels, TRAINING, content_id([seed, row.id]))
    if made is None or row.history:
        return None
    first, *others = made.targets
    changed = {"question": made.question, "target": first, "other_targets": tuple(others), "binding": made.binding}
    return row.model_copy(update=changed)


def bind_rows(
    rows: Sequence[TrainingRow],
    examples: Mapping[str, Example],
    sets: Mapping[str, Sequence[str]],
    share: float,
    seed: int,
) -> list[TrainingRow]:
    """A training set in which a share of the new pool rows that can be bound are; the others stay as they are."""
    new = [row for row in rows if row.origin == "pool"]
    able = [made for row in new if (made := bind_row(row, examples[row.example_id], sets, seed))]
    able.sort(key=lambda row: content_id([seed, "bound", row.id]))
    bound = {row.id: row for row in able[: floor(share * len(able) + 0.5)]}
    return [bound.get(row.id, row) for row in rows]


def bindings_report(
    rows: Iterable[TrainingRow], examples: Mapping[str, Example], sets: Mapping[str, Sequence[str]], share: float
) -> BindingsReport:
    """How many of a round's new pool rows are bound, and how many have nothing to bind."""
    new = [row for row in rows if row.origin == "pool"]
    kinds = Counter(row.binding.kind for row in new if row.binding is not None)
    left = [row for row in new if row.binding is None]
    able = sum(bind_row(row, examples[row.example_id], sets, 0) is not None for row in left)
    return BindingsReport(share=share, rows=len(new), bound=dict(sorted(kinds.items())), nothing=len(left) - able)


def bind_example(example: Example, sets: Mapping[str, Sequence[str]], seed: int) -> Example | None:
    """An evaluation item in held-out words, graded against the mapped answer; none where there is nothing to bind."""
    labels = labels_of(example, example.skills, sets)
    made = bind(example.question, example.gold, (), labels, HELD_OUT, content_id([seed, example.id]))
    if made is None or example.history:
        return None
    grader = "exact" if made.binding.kind == "labels" else example.grader
    words: dict[str, JsonValue] = {**made.binding.words}
    before: JsonValue = {"words": words, "kind": made.binding.kind, "grader": example.grader, "id": example.id}
    return Example.make(
        question=made.question,
        gold=made.gold,
        grader=grader,
        source=example.source,
        group=example.group,
        skills=example.skills,
        difficulty=example.difficulty,
        metadata={**example.metadata, META: before},
    )


def unbound_example(example: Example) -> Example:
    """An evaluation item as it was before `bind_example`, without its solutions; others as they are."""
    of = example.metadata.get(META)
    if not isinstance(of, dict):
        return example
    binding = Binding.model_validate({"kind": of["kind"], "words": of["words"]})
    question, gold, _ = unbind(Bound(binding, example.question, (), example.gold))
    return example.model_copy(update={"id": of["id"], "question": question, "gold": gold, "grader": of["grader"]})


def has_old_rules(example: Example) -> bool:
    """Whether an item's answer was put into words: then the old answer is wrong, and tells who gives it still."""
    of = example.metadata.get(META)
    return isinstance(of, dict) and of["kind"] == "labels"
