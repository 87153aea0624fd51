"""Verifying what a run recorded: every stage is made again from the records before it, and compared number by number.

The hashes of `done.json` show that nothing was damaged; whoever changes a number can change them, too. So they are
checked, and then nothing is believed that other records give: answers are graded anew, and what follows from grades is
counted, tested and planned by the nodes that did it first. Each stage is made from the recorded files of the stages
before it, so that a difference stands where it is and not wherever it leads to.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agents.control import BUILD as CONTROL_BUILD
from agents.control import TRAIN as CONTROL_TRAIN
from agents.demonstrations import WEIGHTS
from agents.evaluation import SERVING
from agents.history import pool_sizes, written_levels
from agents.loop import MERGE, REPEATED, Loop
from agents.merging import LINES, SOUP, chosen_blend, write_merged
from agents.replay import generated
from agents.teach import write_adapter
from curriculum.approval import decision_faults, decision_words, plan_decision
from curriculum.audit import Findings
from curriculum.catalogue_file import CATALOGUE
from curriculum.differences import Compared, compare_files, compare_values, count_numbers
from curriculum.errors import NotRecomputed, RunDirError
from curriculum.plan_check import check_edited
from curriculum.plan_file import APPROVED, PROPOSED, read_approval, read_proposed
from curriculum.records import content_id
from curriculum.round_records import Adapter, DroppedRow, TrainingRow
from curriculum.rundir import DONE, TIMING, RunDir, file_hash, read_json, read_record, read_records
from student.interface import TrainingResult

TAKEN: Mapping[str, tuple[str, ...]] = {
    "answers.jsonl": ("prompt_tokens", "completion_tokens", "entropy"),
    "adapter.json": ("training_tokens", "target_tokens", "rank", "norm", "error"),
    "losses.json": ("losses", "gradient_norms", "probabilities", "phase_steps"),
}
"""Numbers of files that no other record gives: only the student saw them happen."""
READ = ("difficulty", "metadata")
"""Numbers of items and labels that come from data or from an LLM."""
PERSONS_FILES = (CATALOGUE, APPROVED)
"""Files that a person may have written: they are checked, not made again."""

PARTS = {
    "prepare": "items and splits",
    "catalogue": "catalogue",
    "label": "labels",
    "diagnose": "diagnoses",
    "profile": "profiles and mastery",
    "plan": "plans and shares",
    "approve": "approved plans",
    "build": "training sets",
    CONTROL_BUILD: "training sets",
    "train": "trainings",
    CONTROL_TRAIN: "trainings",
    LINES: "merging",
    SOUP: "merging",
    MERGE: "merging",
    "gate": "gate decisions",
    "report": "reports of rounds",
    "final": "final test",
}

Work = Callable[[Path], Mapping[str, Any]]


class AuditedRun(RunDir):
    """A run's records in which each stage that is reached is made again, in a folder of its own, and compared."""

    def __init__(self, path: Path, scratch: Path, found: Findings, without_weights: bool) -> None:
        super().__init__(path)
        self._scratch, self._found, self._without_weights = scratch, found, without_weights
        self._identity = content_id(read_json(path / "run.json")["identity"], 64)
        self.loop: Loop
        """To be set before the first stage."""
        self.reached: dict[str, Mapping[str, Any]] = {}
        """The stages by path, with their updates."""

    def run_stage(self, folder: Path, inputs: Mapping[str, Any], work: Work) -> dict[str, Any]:
        """Checks a finished stage, and returns the update that it recorded.

        Raises:
            RunDirError: there is no such stage, so that nothing after it can be checked.
        """
        if not folder.resolve().is_relative_to(self.path.resolve()):
            raise RunDirError(f"a record names a folder outside of the run: {folder.name!r}")
        name = folder.relative_to(self.path).as_posix()
        if name not in self.reached:
            if not (folder / DONE).is_file():
                raise RunDirError(f"{name}: the stage is missing")
            done = read_json(folder / DONE)
            self.reached[name] = dict(done["update"])
            self._check_hashes(name, folder, done, inputs)
            if name in self.inherited:
                self._check_taken_over(name, folder, done)
            else:
                self._make_again(name, folder, done, self._own_work(folder) or work)
        return dict(self.reached[name])

    def _check_hashes(self, name: str, folder: Path, done: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        file, outputs = f"{name}/{DONE}", done["outputs"]
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != DONE}
        for output in sorted(there | outputs.keys()):
            if output in there:
                self._found.hash(f"{name}/{output}", str(outputs.get(output)), file_hash(folder / output))
            elif not (self._without_weights and is_weights(folder, output)):
                self._found.differ(f"{name}/{output}", "", "a file", None)
        if name not in self.inherited:
            wanted = {**inputs, "identity": self._identity} if "identity" in inputs else dict(inputs)
            self._found.add(_part(name), compare_values(file, wanted, done["inputs"]))
        self._found.hash(f"{file} inputs", str(done["inputs_hash"]), content_id(done["inputs"], 64))

    def _check_taken_over(self, name: str, folder: Path, done: Mapping[str, Any]) -> None:
        self._found.hash(f"{name}/{DONE}", self.inherited[name], file_hash(folder / DONE))
        numbers = sum(count_numbers(folder / output) for output in done["outputs"] if (folder / output).exists())
        self._found.skip(_part(name), "taken over by a fork, whose ancestor's config it was made by", numbers)

    def _make_again(self, name: str, folder: Path, done: Mapping[str, Any], work: Work) -> None:
        made, part = self._scratch / name, _part(name)
        made.mkdir(parents=True)
        recorded = [output for output in sorted(done["outputs"]) if (folder / output).is_file()]
        try:
            update = work(made)
            self._found.add(part, compare_values(f"{name}/{DONE}", {"update": update}, {"update": done["update"]}))
            outputs = {p.relative_to(made).as_posix() for p in made.rglob("*") if _is_output(p)}
            for output in sorted(outputs | set(recorded)):
                self._compare(part, name, output, made / output, folder / output)
        except NotRecomputed as why:
            self._found.skip(part, str(why), sum(count_numbers(folder / output) for output in recorded))
        except Exception as error:  # records that were tampered with can break any of a node's assumptions
            self._found.differ(name, "", "records from which the stage can be made", f"{type(error).__name__}: {error}")

    def _compare(self, part: str, name: str, output: str, made: Path, recorded: Path) -> None:
        file = f"{name}/{output}"
        if not recorded.is_file():
            self._found.differ(file, "", "a file", None)
        elif recorded.name == SERVING:
            self._found.skip(part, "what a server said of the weights it answered with", count_numbers(recorded))
        elif recorded.name == WEIGHTS:
            self._found.skip(part, "rows' weights, of losses that only the trainer saw", count_numbers(recorded))
        elif recorded.name == REPEATED and self.loop.config.teacher.kind == "llm":
            self._found.skip(part, "an LLM's second opinions, which are not kept one by one", count_numbers(recorded))
        elif made.is_file():
            self._found.add(part, compare_files(file, made, recorded, self._taken(name, recorded.name)))
        elif recorded.name not in PERSONS_FILES and not is_weights(recorded.parent.parent, output):
            self._found.differ(file, "", None, "a file that the stage does not write")

    def _taken(self, name: str, file: str) -> tuple[str, ...]:
        config = self.loop.config
        read = name == "prepare" and not generated(config)
        told = config.teacher.kind == "llm" and file in ("labels.jsonl", "written.jsonl")
        return (*TAKEN.get(file, ()), *(READ if read or told else ()))

    def _own_work(self, folder: Path) -> Work | None:
        """Another way to make a stage: trainings are not repeated, and persons' decisions are only checked."""
        if folder.name in ("train", CONTROL_TRAIN):
            return lambda made: self._trained(folder, made)
        if folder.name == MERGE:
            return lambda made: self._merged(folder, made)
        return (lambda made: self._approved(folder)) if folder.name == "approve" else None

    def _trained(self, folder: Path, made: Path) -> Mapping[str, Any]:
        """What a training recorded of itself, put together again from its curves and the files' hashes."""
        control = folder.name == CONTROL_TRAIN
        recorded = read_record(folder / "adapter.json", Adapter)
        rows_file = folder.parent / (CONTROL_BUILD if control else "build") / "training_set.jsonl"
        files = _weights_files(folder)
        curves = read_json(folder / "losses.json")
        too_long = Counter((row.example_id, row.skill, row.origin) for row in _dropped(folder))
        dropped = []
        for row in read_records(rows_file, TrainingRow):
            if too_long[row.example_id, row.skill, row.origin] > 0:
                too_long[row.example_id, row.skill, row.origin] -= 1
                dropped.append(row.id)
        result = TrainingResult(
            steps=len(curves["losses"]),
            training_tokens=recorded.training_tokens,
            target_tokens=recorded.target_tokens,
            losses=tuple(curves["losses"]),
            probabilities=tuple(curves.get("probabilities", ())),
            phase_steps=tuple(curves.get("phase_steps", ())),
            dropped=tuple(dropped),
            gradient_norms=tuple(curves["gradient_norms"]),
        )
        round_ = int(folder.parent.name.removeprefix("round_"))
        adapter = write_adapter(self.loop, round_, rows_file, files, result, made, "control" if control else "")
        return {} if control else {"candidate": adapter.name}

    def _merged(self, folder: Path, made: Path) -> Mapping[str, Any]:
        """What merging recorded of itself, put together again from the choices and the files' hashes."""
        round_ = int(folder.parent.name.removeprefix("round_"))
        recorded = read_record(folder / "adapter.json", Adapter).merged
        if recorded is None:
            raise RunDirError(f"{folder.name}: the adapter is made of nothing")
        blend = chosen_blend(self.loop, round_)
        merged = recorded.model_copy(update={"ingredients": blend.parts})
        adapter = write_merged(self.loop, round_, blend, _weights_files(folder), merged, made)
        return {"candidate": adapter.name}

    def _approved(self, folder: Path) -> Mapping[str, Any]:
        """The decision on a plan: one that nobody made leaves the plan as it was proposed."""
        approval = read_approval(folder / APPROVED)
        proposed = read_proposed(folder.parent / "plan" / PROPOSED)
        edited = check_edited(
            proposed, approval.plan, pool_sizes(self.loop), self.loop.catalogue, written_levels(self.loop)
        )
        name = folder.relative_to(self.path).as_posix()
        if not approval.approved:
            self._found.differ(f"{name}/{APPROVED}", "approved", expected=True, got=False)
        made, plan = (record.model_dump(mode="json") for record in (proposed, approval.plan))
        compared = compare_values(f"{name}/{APPROVED}", {"plan": made}, {"plan": plan})
        decision = plan_decision(proposed, approval)
        if decision is None:
            self._found.add(_part(name), compared)
        else:
            edited = [*decision_faults(proposed, approval), *edited]
            self._found.add(_part(name), Compared(compared.agree, len(compared.differences), []))
            self._found.note(f"{name}: {decision_words(decision)}")
        for fault in edited:
            self._found.differ(f"{name}/{APPROVED}", "plan", "a plan that can be followed", fault)
        return {"action": approval.plan.action}


def _part(stage: str) -> str:
    return "answers and grades" if stage.startswith("answers/") else PARTS.get(stage.rpartition("/")[2], "other stages")


def _is_output(path: Path) -> bool:
    return path.is_file() and path.suffix not in (".journal", ".log", ".tmp") and path.name != TIMING


def is_weights(stage: Path, output: str) -> bool:
    """Whether a stage's output is a file of an adapter."""
    return stage.name in ("train", CONTROL_TRAIN, MERGE) and "/" in output


def _weights_files(folder: Path) -> dict[str, str]:
    """The hashes of an adapter's files, as its stage recorded them."""
    outputs = read_json(folder / DONE)["outputs"]
    return {o.rpartition("/")[2]: sha256 for o, sha256 in outputs.items() if "/" in o}


def _dropped(folder: Path) -> list[DroppedRow]:
    return read_records(folder / "dropped.jsonl", DroppedRow)
