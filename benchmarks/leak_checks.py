"""How many planted leaks the leak check finds, and how often it takes an innocent question for one.

Run: python benchmarks/leak_checks.py [--gsm8k FOLDER]        (one core, a minute, no model, no network)

Held out are generated questions of the quickstart's tasks, and GSM8K's test split where its folder is given. Each gets
every disguise, as if a file or a teacher had brought it; a leak is found when the check says that the disguised
question repeats a held-out one. In generated questions only words of the template are put in place of others: another
word to spell is another question. Changed numbers make a look-alike and no leak: the same template with other numbers
has another answer and is what generators and teachers are there to write. Innocent are also fresh questions of the same
tasks from the same generator, and GSM8K's own training split, whose alarms are printed to be judged by a reader. A
look-alike that happens to be another held-out question is left out.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from machine import describe
from quickstart import CONFIG
from rich.console import Console
from rich.table import Table

from curriculum.config import load_config
from curriculum.duplicates import leaks, normalise
from curriculum.generator import generate_examples
from curriculum.records import Example
from curriculum.report_words import rate_words
from curriculum.statistics import wilson


class Words(NamedTuple):
    """What disguises draw words from, and which words they may replace; `None`: all."""

    drawn: Sequence[str]
    template: frozenset[str] | None


Disguise = Callable[[str, random.Random, Words], str]
MOST_SHOWN = 5


def recased(text: str, random: random.Random, words: Words) -> str:
    """Other case, spacing and punctuation."""
    text = text.upper() if random.random() < 0.5 else text.lower()
    return re.sub(r"\s+", "  ", re.sub(r"[?!]|(?<!\d)[.,]|[.,](?!\d)", " ;", text))


def filled(text: str, random: random.Random, words: Words) -> str:
    """Two courtesies put in front."""
    return f"Please answer this question now: {text}"


def substituted(share: float) -> Disguise:
    """Puts other words in place of a share of the words, never of a number."""

    def disguise(text: str, random: random.Random, words: Words) -> str:
        parts = re.split(r"(\W+)", text)
        may = (lambda part: True) if words.template is None else words.template.__contains__
        places = [i for i, part in enumerate(parts) if part.isalpha() and len(part) > 1 and may(part)]
        for place in random.sample(places, max(1, round(share * len(places)))) if places else ():
            parts[place] = random.choice(words.drawn)
        return "".join(parts)

    return disguise


def reordered(text: str, random: random.Random, words: Words) -> str:
    """The first sentence after the second; as it is where there are no three."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    if len(sentences) < 3:
        return text
    return " ".join([sentences[1], sentences[0], *sentences[2:]])


def embedded(text: str, random: random.Random, words: Words) -> str:
    """Inside a longer text."""
    before, after = (" ".join(random.choices(words.drawn, k=25)) for _ in range(2))
    return f"{before}. {text} {after}."


def truncated(text: str, random: random.Random, words: Words) -> str:
    """Without its last fifth."""
    parts = text.split(" ")
    return " ".join(parts[: max(1, round(0.8 * len(parts)))])


def renumbered(text: str, random: random.Random, words: Words) -> str:
    """Every number another one."""
    return re.sub(r"\d+", lambda found: str(int(found.group()) + random.randint(1, 9)), text)


def one_renumbered(text: str, random: random.Random, words: Words) -> str:
    """One number another one."""
    found = list(re.finditer(r"\d+", text))
    if not found:
        return text
    chosen = random.choice(found)
    return f"{text[: chosen.start()]}{int(chosen.group()) + random.randint(1, 9)}{text[chosen.end() :]}"


LEAKS: dict[str, Disguise] = {
    "verbatim": lambda text, random, words: text,
    "case, spaces, punctuation": recased,
    "courtesies in front": filled,
    "5 % of the words others": substituted(0.05),
    "10 % of the words others": substituted(0.10),
    "20 % of the words others": substituted(0.20),
    "two sentences change places": reordered,
    "inside a longer text": embedded,
    "last fifth cut off": truncated,
}
INNOCENT: dict[str, Disguise] = {"one number changed": one_renumbered, "all numbers changed": renumbered}


def disguised(
    held_out: Sequence[str], disguise: Disguise, may_stay: bool, words: Words, seed: int = 0
) -> list[Example]:
    """The questions in disguise; those that it leaves as they are only where that is no fault."""
    generator = random.Random(seed)
    made = [(text, disguise(text, generator, words)) for text in held_out]
    return [example(new, f"planted:{n}") for n, (old, new) in enumerate(made) if may_stay or new != old]


def example(question: str, source: str) -> Example:
    """A question with nothing else."""
    return Example.make(question=question, gold="0", grader="exact", source=source)


def add_rows(table: Table, name: str, held_out: Sequence[Example], words: Words) -> None:
    """Recall of every disguise, and the false alarms of the innocent ones."""
    texts = [e.question for e in held_out]
    known = set(map(normalise, texts))
    for kind, disguises in (("leak", LEAKS), ("innocent", INNOCENT)):
        for what, disguise in disguises.items():
            planted = {e.id: e for e in disguised(texts, disguise, what == "verbatim", words)}
            if kind == "innocent":
                planted = {id_: e for id_, e in planted.items() if normalise(e.question) not in known}
            found = leaks(planted.values(), held_out)
            table.add_row(name, kind, what, rate_words(wilson(len(found), len(planted))))


def generated() -> tuple[list[Example], list[Example]]:
    """Held-out questions of the quickstart's tasks, and fresh ones of the same tasks, none of which is the same."""
    data = load_config(CONFIG).data
    held_out, _ = generate_examples(data, 0)  # type: ignore[arg-type]
    fresh, _ = generate_examples(data, 1, "write")  # type: ignore[arg-type]
    known = {e.id for e in held_out}
    return held_out, [e for e in fresh if e.id not in known]


def vocabulary(texts: Sequence[str], template: bool) -> Words:
    """The words of texts, as often as they come; those of templates come in one text of fifty or more."""
    drawn = [word for text in texts for word in re.findall(r"[A-Za-z]{2,}", text)]
    texts_with = Counter(word for text in texts for word in set(re.findall(r"[A-Za-z]{2,}", text)))
    return Words(drawn, frozenset(w for w, n in texts_with.items() if 50 * n >= len(texts)) if template else None)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, help="folder with train.jsonl and test.jsonl")
    folder = parser.parse_args().gsm8k
    began, console = time.perf_counter(), Console(width=120)
    table = Table(title="Found by the leak check: share (count, 95 % interval)")
    for head in ("data", "kind", "what", "found"):
        table.add_column(head)
    held_out, fresh = generated()
    add_rows(table, "generated", held_out, vocabulary([e.question for e in held_out], template=True))
    found = leaks(fresh, held_out)
    table.add_row("generated", "innocent", "fresh, same tasks", rate_words(wilson(len(found), len(fresh))))
    shown = [(e.question, found[e.id]) for e in fresh if e.id in found]
    if folder is not None:
        train, test = (
            [json.loads(line)["question"] for line in (folder / f"{name}.jsonl").open()] for name in ("train", "test")
        )
        tests = [example(text, "gsm8k test") for text in test]
        table.add_section()
        add_rows(table, "GSM8K test", tests, vocabulary(train, template=False))
        others = {e.id: e for e in (example(text, "gsm8k train") for text in train)}
        found = leaks(others.values(), tests)
        table.add_row("GSM8K test", "same topic", "the training split", rate_words(wilson(len(found), len(others))))
        shown += [(others[id_].question, reason) for id_, reason in found.items()]
    console.print(table)
    for text, reason in shown[:MOST_SHOWN]:
        console.print(f"alarm: {reason}: {text}", markup=False)
    console.print(describe("reasoning-gym"))
    console.print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
