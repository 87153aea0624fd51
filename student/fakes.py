"""A fake student, for tests of the loop: a table of accuracy per skill that rises with matching rows.

It has no weights and knows the gold answers. It is named a fake wherever its numbers appear.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from curriculum.extraction import has_solution
from curriculum.in_context import ica_scores, ica_weights
from curriculum.neighbours import Vectors
from curriculum.records import Example, Sampling, StudentAnswer, content_id
from curriculum.round_records import TrainingRow
from student.chat_format import prompt_messages
from student.interface import (
    AdapterFiles,
    Encoded,
    Influence,
    MergeResult,
    Piece,
    Progress,
    Prompt,
    Scaled,
    Target,
    TrainingResult,
    TrainingSettings,
    Weighed,
)

ROWS_TO_HALF = 30
"""Rows of a skill after which the fake answers half of what it could not."""
WORD_PLACES = 64
"""Dimensions of the fake's embeddings."""


class FakeStudent:
    """Answers right with a chance that depends on the rows it was trained on for the example's skills."""

    base_name = "fake"

    def __init__(self, examples: Callable[[], Mapping[str, Example]], system_prompt: str = "") -> None:
        self._examples = examples
        self._system_prompt = system_prompt

    def base_hash(self) -> str:
        """A constant: there are no weights."""
        return content_id({"fake": 1}, 64)

    def check(self, log: Path) -> None:
        """There is nothing to check."""

    def encode(self, rows: Sequence[tuple[Prompt, str]], show: bool, log: Path) -> Iterator[Encoded]:
        """Words stand for tokens, and the role of each turn for the special tokens of a template."""
        for prompt, target in rows:
            shown = [p for m in prompt.messages for p in (Piece(m.role, True), Piece(f" {m.content}\n", False))]
            words = sum(1 + len(m.content.split()) for m in prompt.messages)
            pieces = (tuple(shown), (Piece(target, False),)) if show else ((), ())
            yield Encoded(words, len(target.split()), *pieces)

    def answer(
        self,
        prompts: Sequence[Prompt],
        adapter: AdapterFiles,
        sampling: Sampling,
        finished: Set[str],
        log: Path,
        samples: int | None = None,
    ) -> Iterator[StudentAnswer]:
        """Right when a hash of the example falls below the accuracy of its weakest skill.

        Of several samples so many are right as that accuracy says; their entropy is that of being right or not.
        """
        rows = json.loads((adapter.folder / "rows.json").read_text()) if adapter.folder else {}
        examples = self._examples()
        for prompt in prompts:
            example = examples[prompt.example_id]
            trained = min(rows.get(skill, 0) for skill in example.skills)
            accuracy = 0.1 + 0.8 * trained / (trained + ROWS_TO_HALF)
            unsure = -accuracy * math.log(accuracy) - (1 - accuracy) * math.log(1 - accuracy)
            for at in range(samples or 1):
                drawn = {"id": example.id, "sample": at} if at else {"id": example.id}
                luck = int(content_id(drawn, 8), 16) / 16**8
                if example.gold:
                    text = f"Answer: {example.gold}" if luck < accuracy else "Answer: no idea"
                    if prompt.arm == "paraphrase":  # every other one is right
                        odd = int(content_id(["paraphrase", example.id], 8), 16) % 2
                        short = f"In short: {' '.join(example.solutions[:1])}\nAnswer: {example.gold}"
                        text = short if odd else "In short:\nAnswer: no idea"
                else:  # sure of an answer or not, whatever is right
                    text = f"Answer: {7 if luck < accuracy else 100 + at}"
                answer = StudentAnswer(
                    example_id=example.id,
                    adapter=adapter.name,
                    arm=prompt.arm,
                    sampling=sampling,
                    sample_index=at,
                    text=text,
                    finish_reason="stop",
                    prompt_tokens=len(prompt.messages[-1].content.split()),
                    completion_tokens=len(text.split()),
                    entropy=unsure if samples else None,
                )
                if answer.id not in finished:
                    yield answer

    def embed(self, prompts: Sequence[Prompt], adapter: AdapterFiles, log: Path) -> Vectors:
        """How often each word of the question occurs, in as many places as hashes of words fall into."""
        vectors = np.zeros((len(prompts), WORD_PLACES), np.float32)
        for row, prompt in enumerate(prompts):
            for word in prompt.messages[-1].content.split():
                vectors[row, int(content_id(word, 8), 16) % WORD_PLACES] += 1
        return vectors

    def influence(
        self,
        candidates: Sequence[tuple[Prompt, Sequence[str]]],
        targets: Sequence[Target],
        how: Influence,
        adapter: AdapterFiles,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> dict[str, float]:
        """The largest share of words that a candidate has in common with a target's question and right answer.

        Where there are wrong answers, less the same with these: so a row that teaches one is the worse for it.
        """
        scores = {}
        for prompt, texts in candidates:
            own = _words(prompt, texts[0])
            scores[prompt.example_id] = max(
                _overlap(own, _words(t.prompt, t.right)) - (_overlap(own, _words(t.prompt, t.wrong)) if t.wrong else 0)
                for t in targets
            )
            progress(Progress(len(scores), len(candidates), how.method))
        return scores

    def first_token_entropies(
        self, rows: Sequence[tuple[Prompt, str]], adapter: AdapterFiles, log: Path, exact: bool = True
    ) -> list[float]:
        """A nat for each ten characters of the question; the approximation is lower."""
        return [len(prompt.messages[-1].content) / (10 if exact else 11) for prompt, _ in rows]

    def serving(self) -> None:
        """Nothing: there is no server."""
        return None

    def train(
        self,
        rows: Sequence[TrainingRow],
        settings: TrainingSettings,
        folder: Path,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> TrainingResult:
        """Counts the rows of each skill; the count is the adapter."""
        folder.mkdir(parents=True)
        counts = Counter(skill for row in rows for skill in row.skills)
        (folder / "rows.json").write_text(json.dumps({**counts, "seed": settings.seed}, sort_keys=True))
        progress(Progress(1, 1, "loss 1.00"))
        prompts = [
            Prompt(row.id, "plain", prompt_messages(self._system_prompt, row.history, row.question)) for row in rows
        ]
        taught = [
            (prompt, row.targets[epoch % len(row.targets)])
            for epoch in range(settings.epochs)
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        encoded = list(self.encode(taught, False, log))
        phases = {has_solution(row.target) for row in rows} if settings.two_phase else {False}
        return TrainingResult(
            steps=len(phases),
            training_tokens=sum(e.prompt_tokens + e.target_tokens for e in encoded),
            target_tokens=sum(e.target_tokens for e in encoded),
            losses=(1.0,) * len(phases),
            dropped=(),
            gradient_norms=(0.5,) * len(phases),
            weighed=_weighed(rows, settings),
            probabilities=(0.5,) if settings.training is not None and any(map(settings.training.has_dft, rows)) else (),
            phase_steps=(1, 1) if len(phases) > 1 else (),
        )

    def merge(self, parts: Sequence[Scaled], limit: int | None, folder: Path, log: Path) -> MergeResult:
        """The mean of the counts. Its first layers are in the way: with a below 1 counts are 2 − a times as large."""
        counts = _merged(parts)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rows.json").write_text(json.dumps(counts, sort_keys=True))
        return MergeResult(0, sum(counts.values()), None)


def _merged(parts: Sequence[Scaled]) -> dict[str, float]:
    tables = [(json.loads((part.folder / "rows.json").read_text()), part.a) for part in parts]
    return {
        skill: sum(table.get(skill, 0) * (2 - a) for table, a in tables) / len(tables)
        for skill in sorted({skill for table, _ in tables for skill in table} - {"seed"})
    }


def _words(prompt: Prompt, text: str) -> set[str]:
    return {*prompt.messages[-1].content.split(), *text.split()}


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def _weighed(rows: Sequence[TrainingRow], settings: TrainingSettings) -> tuple[Weighed, ...]:
    """A row's loss falls with the share of its words that its demonstrations have."""
    if settings.shots is None or settings.training is None:
        return ()
    alone = [1 + int(content_id(row.question, 8), 16) / 16**8 for row in rows]
    shots = [settings.shots[row.id] for row in rows]

    def after(shown: Sequence[Sequence[tuple[str, str]]]) -> list[float]:
        known = [_shared(row.question, of_row) for row, of_row in zip(rows, shown, strict=True)]
        return [loss * (1 - share / 2) for loss, share in zip(alone, known, strict=True)]

    nearest = after([of_row.nearest for of_row in shots])
    random = after([of_row.random or () for of_row in shots]) if settings.training.ica.subtract_random else None
    scores = ica_scores(alone, nearest, random)
    return tuple(
        Weighed(
            row.id, 0, 0, alone[at], nearest[at], random[at] if random else None, len(shots[at].nearest), score, weight
        )
        for at, (row, score, weight) in enumerate(zip(rows, scores, ica_weights(scores), strict=True))
    )


def _shared(question: str, shots: Sequence[tuple[str, str]]) -> float:
    words, shown = question.split(), {word for text, _ in shots for word in text.split()}
    return sum(word in shown for word in words) / len(words)
