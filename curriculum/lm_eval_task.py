"""The final split as a task for lm-evaluation-harness: a YAML file and a JSONL file of items, and no code.

The task asks what the student was asked and reads the answer as the strict extraction does; what counts as right is
lm-eval's own `exact_match`, without regard to case. So it is a check by another tool, not the same grader twice:
`agrees` counts on how many of a run's recorded answers both say the same.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import yaml

from curriculum.extraction import format_target
from curriculum.records import Example, Grade, Sampling, StudentAnswer, Verdict, canonical_json

STRICT = r"(?:\A|\n)(Answer: [^\n]*\S)\s*\Z"
"""The last line of an answer where it is exactly `Answer: X`, as `extraction.extract_strict` reads it."""
ITEMS = "items.jsonl"


class Task(NamedTuple):
    """A task by the names of its files."""

    name: str
    files: Mapping[str, str]
    items: int
    left_out: int
    """Items with earlier chat turns, which such a task cannot ask."""


def make_task(
    run: str, examples: Sequence[Example], labels: Mapping[str, Sequence[str]], system: str, sampling: Sampling
) -> Task:
    """A task of the examples that have a gold answer and no earlier turns, in the order given.

    Args:
        run: the run's name.
        examples: of the final split.
        labels: example id → its skills.
        system: the student's system prompt, may be empty.
        sampling: how the run had answers decoded.
    """
    asked = [e for e in examples if not e.history]
    rows = [
        {
            "id": e.id,
            "system": system,
            "question": e.question,
            # The whole line: `datasets` reads a column of bare dates as times, lm-eval a bare `[1]` as a list.
            "target": format_target(e.gold, None),
            "skills": list(labels[e.id]),
        }
        for e in asked
    ]
    name = "tutelage_" + re.sub(r"[^a-z0-9]+", "_", run.lower()).strip("_") + "_final"
    greedy = sampling.temperature == 0
    drawn = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p}
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": ITEMS}},
        "test_split": "test",
        "output_type": "generate_until",
        **({"description": "system"} if system else {}),
        "doc_to_text": "question",
        "doc_to_target": "target",
        "generation_kwargs": {"until": [], "max_gen_toks": sampling.max_new_tokens, "do_sample": not greedy, **drawn},
        "filter_list": [
            {
                "name": "strict",
                "filter": [
                    {"function": "regex", "regex_pattern": STRICT, "fallback": ""},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
        ],
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
    }
    text = "".join(canonical_json(row) + "\n" for row in rows)
    return Task(
        name,
        {f"{name}.yaml": yaml.safe_dump(task, sort_keys=False), ITEMS: text},
        len(asked),
        len(examples) - len(asked),
    )


def agrees(
    examples: Mapping[str, Example], answers: Sequence[StudentAnswer], grades: Sequence[Grade]
) -> tuple[int, int]:
    """On how many answers the task's rule and the grade by the strict extraction say the same, and of how many.

    Answers that failed on our side do not count, nor those to items that the task leaves out.
    """
    strict = {g.answer_id: g.strict_verdict is Verdict.CORRECT for g in grades if g.verdict is not Verdict.FAILED}
    compared = [a for a in answers if a.id in strict and not examples[a.example_id].history]
    return sum(_is_right(examples[a.example_id], a.text) == strict[a.id] for a in compared), len(compared)


def _is_right(example: Example, text: str) -> bool:
    found = re.findall(STRICT, text)
    return bool(found) and found[0].strip().lower() == format_target(example.gold, None).lower()
