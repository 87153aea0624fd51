"""What a teacher writes is thrown away, with the reason, unless everything holds; a FAKE server plays the teacher."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import FakeChatServer

from agents.ledger import Ledger
from agents.llm_teacher import LLMTeacher
from agents.teacher import WriteOrder, Written
from curriculum.config import Config
from curriculum.duplicates import SeenQuestions
from curriculum.grading import Grader
from curriculum.records import Example, Skill, SkillCatalogue

ADD = Skill(id="add", name="add", description="Adding numbers.", writable=True)
CATALOGUE = SkillCatalogue(teacher="m", skills=(ADD, Skill(id="spell", name="spell", writable=True)))


def example(question: str, gold: str, split: str = "pool") -> Example:
    made = Example.make(question=question, gold=gold, grader="numeric", source="file:1", solutions=("Add both.",))
    return made.model_copy(update={"split": split})


SEEDS = [
    example("Tom has 3 red apples and buys 4 green apples at the market today. How many apples has Tom?", "7"),
    example("A bus carries 12 people and 9 more get on at the station. How many people are on the bus?", "21"),
]
HELD_OUT = example(
    "Six shelves hold 8 books and 2 maps each in the old town library. How many things are there?", "60", "gate"
)
NEW = "A baker fills 5 trays with rolls and 6 trays with buns before dawn. How many trays did the baker fill?"


class Teacher:
    """A teacher whose words are scripted: the questions it writes, their labels, and the answers it gives in turn."""

    def __init__(self, server: FakeChatServer, folder: Path, grader: Grader) -> None:
        self.questions: list[str] = []
        self.label = {"reason": "r", "skills": ["add"], "difficulty": 2}
        self.answers = ["11", "11", "11"]
        server.script = self.say
        self.shown: list[str] = []
        config = Config.model_validate(
            {
                "data": {"kind": "file", "path": "x", "format": "gsm8k", "splits": {"probe": 1, "gate": 1, "final": 1}},
                "plan": {"rows_per_round": 1},
                "teacher": {
                    "kind": "llm",
                    "model": "m",
                    "base_url": server.url,
                    "concurrency": 1,
                    "backoff_seconds": 0,
                },
            }
        )
        ledger = Ledger(folder / "calls.jsonl", config.teacher.budget)
        self.llm = LLMTeacher(config, ledger, grader, lambda what, p: None, lambda text: None, lambda: None)

    def say(self, prompt: str) -> str | None:
        self.shown.append(prompt)
        if "who writes" in prompt:
            return json.dumps({"design": "d", "questions": self.questions})
        if "which skills" in prompt:
            ids = re.findall(r"^<(q\d+) ", prompt, re.MULTILINE)
            return json.dumps({"labels": [{"id": i, **self.label} for i in ids]})
        self.answers.append(self.answers.pop(0))
        return json.dumps({"solution": "Steps.", "answer": self.answers[-1]})

    def write(self, *questions: str) -> Written:
        self.questions = list(questions)
        seen = SeenQuestions()
        for example in (*SEEDS, HELD_OUT):
            seen.add(example)
        order = WriteOrder(1, ADD, 2, len(questions), 7, frozenset(), SEEDS, seen, {HELD_OUT.id})
        return self.llm.write(order, CATALOGUE, {})


@pytest.fixture
def teacher(tmp_path: Path) -> Iterator[Teacher]:
    with FakeChatServer() as server, Grader() as grader:
        made = Teacher(server, tmp_path, grader)
        yield made
        made.llm.close()


def reasons(made: Written) -> set[str]:
    return set(Counter(d.reason for d in made.dropped))


def test_a_good_question_is_kept_with_its_agreeing_solutions(teacher: Teacher) -> None:
    made = teacher.write(NEW)
    (kept,) = made.examples
    assert (kept.question, kept.gold, kept.grader, len(kept.solutions)) == (NEW, "11", "numeric", 3)
    assert made.labels[0].example_id == kept.id and made.labels[0].skills == ("add",)
    assert kept.source == "written by m in round 1" and not made.dropped and not made.failures


def test_two_of_three_are_a_majority_and_the_third_is_left_out(teacher: Teacher) -> None:
    teacher.answers = ["11", "12", "11.0"]
    (kept,) = teacher.write(NEW).examples
    assert kept.gold == "11" and len(kept.solutions) == 2


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (SEEDS[0].question, "near copy of a pool or written question"),
        (SEEDS[0].question.replace("today", "today please"), "near copy of a pool or written question"),
        (
            SEEDS[0].question.replace("3", "5").replace("4", "9"),
            "near copy of a seed or of another new question, with other numbers",
        ),
        (HELD_OUT.question, "exact duplicate of a held-out question"),
        (HELD_OUT.question.replace("the old", "the very old"), "near duplicate of a held-out question"),
    ],
)
def test_copies_are_dropped(teacher: Teacher, question: str, reason: str) -> None:
    made = teacher.write(question)
    assert not made.examples and reason in reasons(made)
    assert not any(question in shown for shown in teacher.shown if "who writes" not in shown), "nobody solves a copy"


def test_a_copy_of_another_new_question_is_dropped(teacher: Teacher) -> None:
    made = teacher.write(NEW, NEW.replace("5 trays", "7 trays"))
    assert [e.question for e in made.examples] == [NEW]
    assert "near copy of a seed or of another new question, with other numbers" in reasons(made)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ({"reason": "r", "skills": ["spell"], "difficulty": 2}, "off-skill: a blind label does not name the skill"),
        ({"reason": "r", "skills": ["add"], "difficulty": 4}, "off-difficulty by a blind label"),
        ({"reason": "r", "skills": ["fly"], "difficulty": 2}, "no blind label: unknown_skill"),
    ],
)
def test_what_a_blind_label_does_not_confirm_is_dropped(
    teacher: Teacher, label: dict[str, object], reason: str
) -> None:
    teacher.label = label
    made = teacher.write(NEW)
    assert not made.examples and reason in reasons(made)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["1", "2", "3"], "no two of 3 solutions agree"),
        (["about many", "about many", "about many"], "no two of 3 solutions agree"),
    ],
)
def test_without_a_majority_that_the_grader_accepts_it_is_dropped(
    teacher: Teacher, answers: list[str], reason: str
) -> None:
    teacher.answers = answers
    made = teacher.write(NEW)
    assert not made.examples and reasons(made) >= {reason}


def test_the_writer_sees_pool_seeds_with_solutions_and_nothing_held_out(teacher: Teacher) -> None:
    teacher.write(NEW)
    (writing,) = {s for s in teacher.shown if "who writes" in s}
    assert all(s.question in writing and "Add both.\nAnswer:" in writing for s in SEEDS)
    assert not any(HELD_OUT.question in shown for shown in teacher.shown)
