"""What every node of a run works with: the run directory, the config, the teacher, the student.

`Loop` is immutable during a run and holds no results: those are on disk. `State` is all that the graph
itself carries, in plain values.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, cast

from agents.teacher import Planner, Teacher
from curriculum.bindings import unbound_example
from curriculum.config import Config
from curriculum.errors import StopRequested
from curriculum.grading import Grader
from curriculum.in_context import set_aside
from curriculum.plan_file import APPROVED, read_approval
from curriculum.prompts import Prompt
from curriculum.records import Example, Skill, SkillCatalogue, SkillLabel, Split
from curriculum.round_records import RoundPlan, TrainingRow
from curriculum.rundir import DONE, RunDir, read_json, read_record, read_records, write_records
from curriculum.teacher_records import TeacherFailure
from student.interface import AdapterFiles, Progress, Student

FAILED = "failed.jsonl"
"""In a stage's folder: the items its teacher failed on, if there are any."""
MERGE = "merge"
"""The stage of a round that has what was made of its adapter after the training, where that is another one."""
REPEATED = "repeated.json"
"""In the folder of a round's diagnoses: how far they repeat, where that was measured."""


class State(TypedDict, total=False):
    """What the graph carries from node to node. Everything else is in the run directory."""

    round: int
    """The round being worked on; 0 is the untrained base."""
    adapter: str
    """The accepted adapter's name, or `base`."""
    adapter_round: int
    """The round that trained it; 0 for the base."""
    action: str
    """What the round's plan says: `train` or `stop`."""
    candidate: str
    """The adapter this round trained."""
    waiting_for: str
    """The plan file a person has to approve; empty when nobody is waited for."""


class WaitingForApproval(Exception):
    """Leaves a stage undone: a person has not approved the plan or the catalogue yet."""


@dataclass(eq=False)
class Loop:
    """The parts of a run, and typed access to what its finished stages wrote."""

    run: RunDir
    config: Config
    teacher: Teacher
    student: Student
    prompt: Prompt
    grader: Grader
    progress: Callable[[str, Progress], None]
    """Called with the name of a long step and how far it is."""
    say: Callable[[str], None]
    """Called with a sentence on what just happened."""
    planner: Planner | None = None
    """The LLM that plans, where the config wants one."""
    extra_graders: Mapping[str, Grader] = field(default_factory=dict)
    """The grader of each extra set."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when a person or the system asked the run to stop."""

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.run.path.name

    def stage(self, folder: Path, inputs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> "State":
        """Runs a stage, or finds it done; returns its update of the state. See `RunDir.run_stage`."""
        return cast(State, self.run.run_stage(folder, inputs, work))

    def check_stop(self) -> None:
        """A safe point: raises `StopRequested` when a stop was asked for."""
        if self.stopping.is_set():
            raise StopRequested(self.stop_message)

    def stoppable(self, what: str) -> Callable[[Progress], None]:
        """Says how far a long step is, and ends it where a stop was asked for: what it did is done again."""

        def say(progress: Progress) -> None:
            self.check_stop()
            self.progress(what, progress)

        return say

    @property
    def stop_message(self) -> str:
        """What a person is told after a stop."""
        return f"stopped on request; go on with: tutelage resume {self.run.path}"

    @cached_property
    def base_hash(self) -> str:
        """Hash of the base model's files, computed once per process."""
        return self.student.base_hash()

    @cached_property
    def examples(self) -> dict[str, Example]:
        """All examples of all splits, by id; only after `prepare`. Those of the extra sets are none of them."""
        return {e.id: e for e in read_records(self.run.stage_path("prepare") / "examples.jsonl", Example)}

    @cached_property
    def extra(self) -> dict[str, list[Example]]:
        """The items of each extra set, sorted by id; only after `prepare`.

        Those of the retention set are scored each round, the others at the end, no sooner.
        """
        folder = self.run.stage_path("prepare")
        return {name: read_records(folder / f"extra-{name}.jsonl", Example) for name in sorted(self.config.extra)}

    def grader_of(self, example: Example) -> Grader:
        """The grader of an item of a split or of an extra set."""
        if example.id in self.examples:
            return self.grader
        return next(self.extra_graders[name] for name, items in self.extra.items() if example in items)

    @cached_property
    def profiled(self) -> dict[str, Example]:
        """All examples of all splits and those of the extra set that profiles are made of, by id."""
        of_set = self.extra[name] if (name := self.config.profile_set()) else []
        return self.examples | {e.id: e for e in of_set}

    @cached_property
    def labels(self) -> dict[str, SkillLabel]:
        """All labels, by example id; only after `label`."""
        return {r.example_id: r for r in read_records(self.run.stage_path("label") / "labels.jsonl", SkillLabel)}

    @cached_property
    def catalogue(self) -> SkillCatalogue:
        """The skill catalogue; only after `catalogue`."""
        return read_record(self.run.stage_path("catalogue") / "skills.json", SkillCatalogue)

    @cached_property
    def proposed(self) -> SkillCatalogue:
        """The catalogue as the teacher proposed it, before a person's edits: what it is asked with."""
        path = self.run.stage_path("catalogue") / "proposed.json"
        return read_record(path, SkillCatalogue) if path.exists() else self.catalogue

    @cached_property
    def moved_skills(self) -> dict[str, str | None]:
        """Proposed skill → skill of the catalogue, `None` where it was dropped; empty when nothing was edited."""
        path = self.run.stage_path("catalogue") / "moved.json"
        return dict(read_json(path)["moved"]) if path.exists() else {}

    @cached_property
    def unlabelled(self) -> frozenset[str]:
        """The examples that have no label and so take no part; only after `label`."""
        path = self.run.stage_path("label") / FAILED
        return frozenset(r.item_id for r in read_records(path, TeacherFailure)) if path.exists() else frozenset()

    @property
    def skills(self) -> tuple[Skill, ...]:
        """The skills of the catalogue."""
        return self.catalogue.skills

    def split(self, split: Split) -> list[Example]:
        """The examples of one split, sorted by id; after `label` only those that have a label."""
        labelled = (self.run.stage_path("label") / DONE).exists()
        unlabelled = self.unlabelled if labelled else frozenset()
        return sorted((e for e in self.examples.values() if e.split == split and e.id not in unlabelled), key=_id)

    @cached_property
    def holdout(self) -> frozenset[str]:
        """The pool examples that are set aside for demonstrations and never taught; only after `label`.

        None where rows are not weighed.
        """
        if self.config.training.weights != "ica":
            return frozenset()
        pool = [(e, min(self.labels[e.id].skills)) for e in self.split("pool")]
        return set_aside(pool, self.config.training.ica.holdout_share, self.config.seed)

    def held_out(self) -> list[Example]:
        """The examples no training row may touch: those of the held-out splits and of the extra sets."""
        extra = [e for items in self.extra.values() for e in items]
        extra += [before for e in extra if (before := unbound_example(e)) is not e]
        return [*(e for e in self.examples.values() if e.split != "pool"), *extra]

    def adapter_files(self, name: str, round_: int) -> AdapterFiles:
        """Where an adapter's files are; the base has none."""
        if not round_:
            return AdapterFiles(name, None)
        stage = adapter_stage(self.run, round_, name)
        return AdapterFiles(name, stage / name, merged=stage.name == MERGE)

    def plan(self, round_: int) -> RoundPlan:
        """A round's approved plan."""
        return read_approval(self.run.round_stage(round_, "approve") / APPROVED).plan

    def new_rows(self, round_: int) -> list[TrainingRow]:
        """The rows a round added to the training set: all but its replay."""
        rows = read_records(self.run.round_stage(round_, "build") / "training_set.jsonl", TrainingRow)
        return [row for row in rows if row.origin != "replay"]


def adapter_stage(run: RunDir, round_: int, name: str) -> Path:
    """The stage of a round that made an adapter: what was made of its training's, or the training itself."""
    merged = run.round_stage(round_, MERGE)
    record = merged / "adapter.json"
    there = record.exists() and read_json(record)["name"] == name
    return merged if there else run.round_stage(round_, "train")


def _id(example: Example) -> str:
    return example.id


def stage_inputs(loop: Loop, *folders: Path) -> dict[str, str]:
    """The inputs of a stage that reads these finished stages: the run's identity and their outputs."""
    read = {folder.relative_to(loop.run.path).as_posix(): loop.run.outputs_hash(folder) for folder in folders}
    return {"identity": loop.config.identity_hash, **read}


def write_failures(folder: Path, failures: Sequence[TeacherFailure]) -> None:
    """Lists the items a stage's teacher failed on; no file when there are none."""
    if failures:
        ordered = sorted(failures, key=lambda f: (f.role, f.item_id))
        write_records(folder / FAILED, ordered)
