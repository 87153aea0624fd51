"""What the loop asks of a student: answer questions, and train one adapter.

Three implementations: `student.local.LocalStudent` (a real model, in subprocesses), `student.vllm_student.VllmStudent`
(the same, but a vLLM server answers) and `student.fakes.FakeStudent` (a table that learns, for tests of the loop).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from curriculum.neighbours import Vectors
from curriculum.plan_config import LessConfig, PreferenceWeight
from curriculum.records import Arm, Message, Sampling, StudentAnswer
from curriculum.round_records import TrainingRow
from curriculum.serving_records import Serving
from curriculum.training_config import TrainingConfig


class Prompt(NamedTuple):
    """One question as the student will see it, with whose answer it will be."""

    example_id: str
    arm: Arm
    messages: tuple[Message, ...]


class AdapterFiles(NamedTuple):
    """An adapter to answer with: its name for the records and its folder; no folder means the base."""

    name: str
    folder: Path | None
    merged: bool = False
    """Made of others: so near to them that a server's weights are told from the base's only."""


class Scaled(NamedTuple):
    """A trained adapter to be merged: its folder, and what LiNeS multiplies its first layer by."""

    folder: Path
    a: float


class MergeResult(NamedTuple):
    """What merging adapters came to; see `merge_records.Merged`."""

    rank: int
    norm: float
    error: float | None


class Shots(NamedTuple):
    """Demonstrations that a row's loss is looked at after, as (question, answer) turns; the nearest first."""

    nearest: Sequence[tuple[str, str]]
    random: Sequence[tuple[str, str]] | None
    """Where the score of random ones is subtracted."""


class TrainingSettings(NamedTuple):
    """What one training is told beyond its rows; the rest comes from the config."""

    learning_rate: float
    epochs: int
    seed: int
    start: Path | None
    """The folder of the adapter to go on from; none for a fresh one."""
    steps: int | None = None
    """Optimizer steps, where they are given: the last batches are left out, or the first ones taken again."""
    training: TrainingConfig | None = None
    """The config's section, where it is not the one the student was made with."""
    shots: Mapping[str, Shots] | None = None
    """By row id, where rows are weighed by in-context approximation."""
    two_phase: bool = False
    """Whether rows with answers alone are taught first, and then those with worked solutions."""


class Target(NamedTuple):
    """A failed question with its right answer and, where a method needs it, the student's own wrong one."""

    prompt: Prompt
    right: str
    wrong: str | None
    skills: tuple[str, ...]


class Influence(NamedTuple):
    """How candidates are scored by their gradients: see `student.influence` and `student.gradient_similarity`."""

    method: Literal["prism", "less"]
    weight: PreferenceWeight
    less: LessConfig
    seed: int


class Progress(NamedTuple):
    """How far a long step is: `done` of `total` units (answers or optimizer steps), and a note such as a loss."""

    done: int
    total: int
    note: str


class Weighed(NamedTuple):
    """What one scoring of the training set said of one row; losses in nats a target token."""

    row_id: str
    refresh: int
    """Which scoring, from 0."""
    step: int
    """Optimizer steps done before it."""
    alone: float
    shown: float
    random: float | None
    demonstrations: int
    """How many of the nearest fit."""
    score: float
    weight: float


class TrainingResult(NamedTuple):
    """What a finished training reports; the adapter's files are in the folder it was given."""

    steps: int
    training_tokens: int
    target_tokens: int
    losses: tuple[float, ...]
    dropped: tuple[str, ...]
    """Ids of training rows that were too long."""
    gradient_norms: tuple[float, ...] = ()
    """One an optimizer step, before clipping."""
    weighed: tuple[Weighed, ...] = ()
    """One a row and scoring, where rows are weighed."""
    scoring_seconds: float = 0.0
    """What that took."""
    probabilities: tuple[float, ...] = ()
    """Mean probability of the targets taught by DFT, one for each step that has any."""
    phase_steps: tuple[int, ...] = ()
    """Optimizer steps of each phase, where there are two."""


class Piece(NamedTuple):
    """A part of an encoded text: ordinary text, or one special token that the chat template wrote."""

    text: str
    special: bool


class Encoded(NamedTuple):
    """A question and its target as the student's tokenizer and chat template make them."""

    prompt_tokens: int
    target_tokens: int
    """The end-of-turn token included."""
    prompt: tuple[Piece, ...] = ()
    target: tuple[Piece, ...] = ()


class Student(Protocol):
    """A model that answers and can be taught."""

    base_name: str
    """The base model, as named in the config."""

    def base_hash(self) -> str:
        """Hash of the base model's weights and tokenizer files."""
        ...

    def check(self, log: Path) -> None:
        """Finds out whether the base can be served and trained at all, before anything is paid for.

        Raises:
            UserError: it needs code of its own, cannot be read, or its chat template does not serve.
        """
        ...

    def encode(self, rows: Sequence[tuple[Prompt, str]], show: bool, log: Path) -> Iterator[Encoded]:
        """Prompts with their targets as they are read, in the order given; with their texts when `show` is set.

        Raises:
            UserError: the chat template does not serve for a row.
        """
        ...

    def answer(
        self,
        prompts: Sequence[Prompt],
        adapter: AdapterFiles,
        sampling: Sampling,
        finished: Set[str],
        log: Path,
        samples: int | None = None,
    ) -> Iterator[StudentAnswer]:
        """Answers every prompt whose answer id is not in `finished`, as the answers come.

        The partition of `prompts` into batches does not depend on `finished`, so an interrupted
        evaluation gives the same texts as an undisturbed one. With `samples` there are so many answers to each prompt,
        told apart by their sample index, each with the entropy at its first token; without, one and no entropy.

        Raises:
            OutOfMemory: memory ran out, or the system killed the student; the message says what to change.
        """
        ...

    def embed(self, prompts: Sequence[Prompt], adapter: AdapterFiles, log: Path) -> Vectors:
        """Where the prompts' questions lie in the student's own space, `prompts × dimensions`, in the order given.

        Each is the mean of the question's hidden states, of length 1.

        Raises:
            OutOfMemory: memory ran out, or the system killed the student; the message says what to change.
        """
        ...

    def influence(
        self,
        candidates: Sequence[tuple[Prompt, Sequence[str]]],
        targets: Sequence[Target],
        how: Influence,
        adapter: AdapterFiles,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> dict[str, float]:
        """How far training on each candidate would help with the targets, by id: higher is more helpful.

        Args:
            candidates: prompts with the texts that they may be taught, the first that fits being taken.
            targets: at least one; PRISM needs the wrong answer of each.
            how: the method with its settings.
            adapter: whose gradients they are.
            log: of the worker.
            progress: told how many candidates are read.

        Returns:
            No score for a candidate that is too long to be trained on.

        Raises:
            UserError: no target or candidate fits, or this base has no gradients of single rows.
            OutOfMemory: memory ran out, or the system killed the student; the message says what to change.
        """
        ...

    def first_token_entropies(
        self, rows: Sequence[tuple[Prompt, str]], adapter: AdapterFiles, log: Path, exact: bool = True
    ) -> list[float]:
        """How unsure an adapter is of each answer: the entropy at its first token, in nats, in the order given.

        Args:
            rows: prompts with their answer lines, of which only the shape is used.
            adapter: the base or a trained one.
            log: file the log goes to.
            exact: over the whole vocabulary; or else of the 20 likeliest tokens, by the server where there is one.
        """
        ...

    def serving(self) -> Serving | None:
        """Which weights the last answers came from, where a server gave them."""
        ...

    def train(
        self,
        rows: Sequence[TrainingRow],
        settings: TrainingSettings,
        folder: Path,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> TrainingResult:
        """Trains a LoRA adapter on the base, fresh or from `settings.start`, and writes it into `folder`.

        Raises:
            TrainingError: the loss diverged or became NaN, or memory ran out; the message says what to change.
        """
        ...

    def merge(self, parts: Sequence[Scaled], limit: int | None, folder: Path, log: Path) -> MergeResult:
        """Writes the mean of adapters' updates, each scaled with depth, into `folder` as an adapter; see `merging`.

        Args:
            parts: at least one; one alone with a = 1 is copied byte for byte.
            limit: most rank of the result, beyond which the nearest of that rank is written; none for any.
            folder: that appears when it is complete.
            log: file the log goes to.

        Raises:
            StudentError: the adapters are not of one base and recipe.
            UserError: the adapter cannot be written.
        """
        ...
