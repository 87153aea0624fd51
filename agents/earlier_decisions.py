"""Decisions on plans that another run recorded, taken over where the same plan is proposed again.

A run that begins with them has copies in its folder, so that it depends on no other run; a fork has those of the run
it was forked from. The same plan over the same labelled examples is decided as it was; any other is asked about anew.
"""

from pathlib import Path

from agents.loop import Loop
from curriculum.approval import AUTOMATIC, RecordedDecision, plan_changes
from curriculum.errors import RunDirError
from curriculum.plan_file import APPROVED, PROPOSED, PlanApproval, read_approval, read_proposed
from curriculum.round_records import RoundPlan
from curriculum.rundir import RunDir, is_whole, read_record, write_record

FOLDER = "decisions"
"""In a run's folder: the decisions it began with, one file a round."""
MOST_SAID = 8
"""Differences between two plans that are named."""


def copy_decisions(source: RunDir, target: Path) -> int:
    """Copies the decisions that persons made in a run, and those it began with, into a new run's folder.

    Returns:
        How many there are.

    Raises:
        RunDirError: a file of theirs is damaged.
    """
    begun = {path.name: read_record(path, RecordedDecision) for path in (source.path / FOLDER).glob("round_*.json")}
    made = begun | {f"{folder.parent.name}.json": made for folder, made in _made(source)}
    for name, decision in sorted(made.items()):
        (target / FOLDER).mkdir(exist_ok=True)
        write_record(target / FOLDER / name, decision)
    return len(made)


def check_decisions(source: Path) -> RunDir:
    """The run whose decisions are to be taken over.

    Raises:
        RunDirError: it is no run, or no person decided on a plan in it.
    """
    run = RunDir(source)
    if not (source / "run.json").is_file():
        raise RunDirError(f"--decisions {source}: expected a run's folder with a run.json")
    if not (_made(run) or any((source / FOLDER).glob("round_*.json"))):
        raise RunDirError(f"--decisions {source}: expected a run in which a person approved a plan, got none")
    return run


def _made(source: RunDir) -> list[tuple[Path, RecordedDecision]]:
    """The folders of the stages in which a person decided, with the decisions."""
    made = []
    for folder in sorted(source.path.glob("round_*/approve")):
        plan = folder.parent / "plan"
        if not (is_whole(folder) and is_whole(plan)):
            continue
        approval = read_approval(folder / APPROVED)
        if approval.by != AUTOMATIC:
            proposed = read_proposed(plan / PROPOSED)
            made.append((folder, _record(source, proposed, approval)))
    return made


def _record(run: RunDir, proposed: RoundPlan, approval: PlanApproval) -> RecordedDecision:
    return RecordedDecision(run=run.path.name, labels=_labels(run), proposed=proposed, approval=approval)


def _labels(run: RunDir) -> str:
    """What says that two runs have the same labelled examples."""
    return run.outputs_hash(run.stage_path("label"))


def taken_decision(loop: Loop, proposed: RoundPlan) -> tuple[PlanApproval | None, str]:
    """The decision that the run began with, where it is on this very plan; and why it is not, where there is one."""
    path = loop.run.path / FOLDER / f"round_{proposed.round:02d}.json"
    if not path.exists():
        return None, ""
    recorded = read_record(path, RecordedDecision)
    origin = recorded.approval.taken_from or recorded.run
    if recorded.proposed == proposed and recorded.labels == _labels(loop.run):
        return recorded.approval.model_copy(update={"taken_from": origin}), ""
    changes = plan_changes(recorded.proposed, proposed) or ["the labelled examples are others"]
    more = f"; and {len(changes) - MOST_SAID} more" if len(changes) > MOST_SAID else ""
    differs = "; ".join(changes[:MOST_SAID]) + more
    return None, (
        f"{recorded.approval.by} decided on another plan in the run {recorded.run}, so that decision is not taken "
        f"over. From that plan to this one: {differs}."
    )
