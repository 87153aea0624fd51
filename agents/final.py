"""The node `finish`: the final test, and the extra sets. It decides nothing, and nothing is decided after it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.control import compared, has_control, pair, pair_folders
from agents.evaluation import Evaluation, evaluate_extra, evaluate_split
from agents.loop import Loop, State, stage_inputs
from curriculum.bindings import has_old_rules, unbound_example
from curriculum.records import BASE, Arm
from curriculum.report_build import ArmGrades, final_report
from curriculum.rundir import DONE, append_line, write_json
from student.interface import AdapterFiles

OPENINGS = "final_openings.jsonl"
"""Every opening of the final split, with its time: not canonical, it is a log."""


def finish(loop: Loop, state: State) -> State:
    """The final test and the extra sets: the base, the base with few-shot examples, the last accepted adapter.

    Where a training has a control, the last such pair answers the final split, too, for the comparison of the two.
    Each adapter answers once.
    """
    adapter = loop.adapter_files(state["adapter"], state["adapter_round"])
    base = loop.adapter_files(BASE, 0)
    arms: list[tuple[AdapterFiles, Arm]] = [(base, "plain"), (base, "few_shot"), (adapter, "plain")]
    final = [_opened(loop, files, arm) for files, arm in arms]
    extra = {name: [evaluate_extra(loop, files, name, arm) for files, arm in arms] for name in loop.extra}
    round_ = max((r for r in range(1, state["round"]) if has_control(loop, r)), default=0)
    if loop.config.control == "none":
        round_ = 0
    for files in pair(loop, round_) if round_ else ():
        _opened(loop, files, "plain")

    def work(folder: Path) -> Mapping[str, Any]:
        also = f", and for round {round_}'s candidate and its control" if round_ else ""
        opened = (
            f"opened for base, base with few-shot examples and {adapter.name}{also}; every opening is in {OPENINGS}"
        )
        sets = {name: ArmGrades(*(e.grades for e in answered)) for name, answered in extra.items()}
        grades = ArmGrades(*(e.grades for e in final))
        old = {name: of_set for name, answered in extra.items() if (of_set := _old_rules(loop, name, answered))}
        made = final_report(loop.labels, grades, adapter.name, opened, sets, loop.config.retention_sets, old)
        if round_:
            made = made.model_copy(update={"control": compared(loop, round_, "final")})
        write_json(folder / "final.json", {"schema_version": 1, "final": made.model_dump(mode="json")})
        return {}

    folders = [e.folder for answered in (final, *extra.values()) for e in answered]
    folders += pair_folders(loop, round_, "final") if round_ else []
    inputs = stage_inputs(loop, loop.run.stage_path("label"), *dict.fromkeys(folders))
    return loop.stage(loop.run.stage_path("final"), inputs, work)


def _old_rules(loop: Loop, name: str, answered: list[Evaluation]) -> ArmGrades | None:
    """The same answers by what was right before a set was put into words; none where no answer was."""
    before = {e.id: unbound_example(e) for e in loop.extra[name] if has_old_rules(e)}
    if not before:
        return None
    asked = [[(before[a.example_id], a) for a in e.answers if a.example_id in before] for e in answered]
    return ArmGrades(*(loop.extra_graders[name].grade(pairs) for pairs in asked))


def _opened(loop: Loop, files: AdapterFiles, arm: Arm) -> Evaluation:
    """What an adapter answers on the final split; that it is opened for it is logged."""
    name = "final" if arm == "plain" else f"final_{arm}"
    if not (loop.run.stage_path("answers") / files.name / name / DONE).exists():
        opening = {"schema_version": 1, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        append_line(loop.run.path / OPENINGS, opening | {"adapter": files.name, "arm": arm})
    return evaluate_split(loop, files, "final", arm)
