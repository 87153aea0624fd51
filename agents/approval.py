"""A person's approval: what a run waits for, the decision on it by command, and the dialogue in the terminal."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, Group, RenderableType

from agents.nodes import PROPOSED as PROPOSED_CATALOGUE
from agents.proposal import PAGE, read_proposal, write_page
from curriculum.approval import name_faults, plan_changes
from curriculum.catalogue_file import CATALOGUE, edited_catalogue, read_catalogue, write_catalogue
from curriculum.errors import RunDirError, UserError
from curriculum.plan_file import APPROVED, read_approval, write_approval
from curriculum.proposal_views import approve_command, render_terminal
from curriculum.records import SkillCatalogue
from curriculum.report_text import add_row, narrow_table, safe_text
from curriculum.rundir import DONE, STARTED, RunDir, read_record


class Waiting(NamedTuple):
    """What a run waits for a person to approve."""

    run: RunDir
    file: Path
    round: int | None
    """Of the plan; none where it is the skill catalogue."""

    @property
    def what(self) -> str:
        """What it is, in words."""
        return "the skill catalogue" if self.round is None else f"the plan of round {self.round}"

    @property
    def page(self) -> Path | None:
        """The page that shows a plan."""
        return None if self.round is None else self.file.parents[1] / PAGE


def waiting(run: RunDir) -> Waiting | None:
    """What the run waits for, if it waits."""
    rounds = sorted(int(path.name[6:]) for path in run.path.glob("round_*") if path.name[6:].isdecimal())
    files: dict[int | None, Path] = {None: run.stage_path("catalogue") / CATALOGUE}
    files |= {round_: run.round_stage(round_, "approve") / APPROVED for round_ in rounds}
    for round_, file in files.items():
        if file.is_file() and (file.parent / STARTED).exists() and not (file.parent / DONE).exists():
            return Waiting(run, file, round_)
    return None


def how_to_go_on(what: Waiting) -> str:
    """What a person is told where nobody can be asked."""
    page = f"read {what.page}; " if what.page else ""
    return (
        f"waiting for approval of {what.what}: {page}to change it edit {what.file}; then\n"
        f"  {approve_command(str(what.run.path))}\n  tutelage resume {shlex.quote(str(what.run.path))}"
    )


def approve_waiting(path: Path, by: str, reason: str) -> Waiting:
    """Approves what a run waits for as its file says it, with who and why; nothing is started.

    Raises:
        UserError: the run waits for nothing, or the file cannot be followed: every fault is listed.
    """
    if not path.is_dir():
        raise RunDirError(f"{path}: expected a run's folder. Start one with: tutelage run CONFIG --approve")
    what = waiting(RunDir(path))
    if what is None:
        raise RunDirError(
            f"{path}: nothing waits for approval. To be asked after each plan: tutelage resume {path} --approve"
        )
    with what.run:
        faults = [*name_faults(by, reason), *_faults(what, by, reason)]
        if faults:
            raise UserError(f"{what.file}: {what.what} cannot be approved:\n" + "\n".join(f"  {f}" for f in faults))
        _write(what, by, reason)
    return what


def _faults(what: Waiting, by: str, reason: str) -> list[str]:
    """Why the file could not be followed were it approved, a missing name or reason apart."""
    named = {"approved": True, "by": by.strip() or "?", "reason": reason.strip() or "?"}
    try:
        if what.round is None:
            proposed = read_record(what.file.parent / PROPOSED_CATALOGUE, SkillCatalogue)
            edited_catalogue(proposed, read_catalogue(what.file).model_copy(update=named), what.file)
            return []
        approval = read_approval(what.file).model_copy(update=named)
        return list(read_proposal(what.run, what.round).faults(approval))
    except UserError as error:
        return [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]


def _write(what: Waiting, by: str, reason: str) -> None:
    named = {"approved": True, "by": by.strip(), "reason": reason.strip()}
    if what.round is None:
        write_catalogue(what.file, read_catalogue(what.file).model_copy(update=named))
        return
    write_approval(what.file, read_approval(what.file).model_copy(update=named))
    write_page(what.run, what.round)


def ask(what: Waiting, console: Console) -> bool:
    """Shows what waits and asks a person at the terminal: approve, edit or stop.

    Returns:
        Whether it is approved; if not, the run goes on waiting.
    """
    console.print(_summary(what))
    try:
        while True:
            answer = input(f"{what.what}: [a]pprove, [e]dit or [s]top? ").strip().lower()
            if answer in ("s", "stop"):
                return False
            if answer in ("e", "edit"):
                _edit(what, console)
            if answer in ("a", "approve", "e", "edit") and _usable(what, console) and answer[0] == "a":
                _write(what, _required("your name: "), _required("why: "))
                return True
    except (EOFError, KeyboardInterrupt):
        console.print()
        return False


def _required(question: str) -> str:
    """An answer that says something: a decision without a name or a reason is none."""
    while not (answer := input(question).strip()):
        pass
    return answer


def _usable(what: Waiting, console: Console) -> bool:
    """Whether the file can be followed; says its faults, or what it changes."""
    if faults := _faults(what, "", ""):
        console.print(safe_text("It cannot be approved as it is:\n" + "\n".join(f"  {f}" for f in faults)))
        return False
    if what.round is not None:
        changes = plan_changes(read_proposal(what.run, what.round).plan, read_approval(what.file).plan)
        if changes:
            console.print(safe_text("Your changes:\n" + "\n".join(f"  {change}" for change in changes)))
    return True


def _edit(what: Waiting, console: Console) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        console.print(safe_text(f"No EDITOR is set: edit {what.file} in another window, then approve here."))
        return
    try:
        subprocess.run([*shlex.split(editor), str(what.file)], check=False)
    except (OSError, ValueError) as error:
        console.print(safe_text(f"EDITOR {editor!r} cannot be started: {error}"))


def _summary(what: Waiting) -> RenderableType:
    place = safe_text(f"To change it: {what.file}" + (f"\nWith a sample of the rows: {what.page}" if what.page else ""))
    if what.round is not None:
        return Group(render_terminal(read_proposal(what.run, what.round)), place)
    table = narrow_table("The skills that the teacher found", ["id", "name", "description"])
    for id_, skill in read_catalogue(what.file).skills.items():
        add_row(table, [id_, skill.name, skill.description])
    table.columns[2].no_wrap = False
    return Group(table, place)
