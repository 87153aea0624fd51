"""The skill catalogue as a YAML file that a person may edit: rename, merge, drop, at no cost in calls.

Teachers are always asked with the catalogue as it was proposed; what they answer is mapped to the edited one.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from curriculum.approval import AUTOMATIC, name_faults
from curriculum.config_yaml import parse_yaml
from curriculum.errors import UserError
from curriculum.records import Part, Skill, SkillCatalogue
from curriculum.rundir import write_atomic

CATALOGUE = "catalogue.yaml"
"""Its name in the folder of the stage `catalogue`."""
HEAD = """\
# The skills of this run. You may change a `name` or a `description`, merge a skill into another (`into: ID`), or
# drop it (`drop: true`); the ids on the left stay. No question is labelled again. Then set `approved: true`, fill in
# `by` and `reason`, and resume. An edit after the first round makes the rounds again.
"""


class EditedSkill(Part):
    """One skill as a person may change it."""

    name: str = Field(min_length=1, max_length=80)
    description: str = ""
    aliases: tuple[str, ...] = ()
    into: str | None = None
    drop: bool = False


class CatalogueFile(Part):
    """The whole file."""

    approved: bool
    by: str = ""
    reason: str = ""
    skills: dict[str, EditedSkill]


def first_catalogue(proposed: SkillCatalogue, approved: bool) -> CatalogueFile:
    """The file before anybody edits it; approved, where nobody is waited for, by the config."""
    skills = {s.id: EditedSkill(name=s.name, description=s.description, aliases=s.aliases) for s in proposed.skills}
    by, reason = (AUTOMATIC, "teacher.catalogue.approve is false") if approved else ("", "")
    return CatalogueFile(approved=approved, by=by, reason=reason, skills=skills)


def write_catalogue(path: Path, file: CatalogueFile) -> None:
    """Writes the file for editing."""
    tree = file.model_dump(mode="json")
    write_atomic(path, HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def read_catalogue(path: Path) -> CatalogueFile:
    """Reads the file; raises `UserError` with every fault."""
    try:
        return CatalogueFile.model_validate(parse_yaml(path.read_text(encoding="utf-8"))[1])
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: expected the skill catalogue as YAML, got: {error}") from None
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise UserError(f"{path}: the catalogue cannot be used:\n" + "\n".join(faults)) from None


def catalogue_words(file: CatalogueFile) -> str:
    """Who approved the skills and why; empty where nobody was asked."""
    if file.by in ("", AUTOMATIC):
        return ""
    return f"The skill catalogue was approved by {file.by}: {file.reason.rstrip('.')}."


def edited_catalogue(
    proposed: SkillCatalogue, edited: CatalogueFile, path: Path
) -> tuple[SkillCatalogue, dict[str, str | None]]:
    """The catalogue after a person's edits, and proposed id → id in it (`None`: dropped).

    Raises:
        UserError: every fault: nobody's name on it, ids added or left out, a merge into what is not there or into
            itself, nothing left.
    """
    ids = {s.id for s in proposed.skills}
    faults = name_faults(edited.by, edited.reason) if edited.approved else []
    if edited.by == AUTOMATIC and edited.skills != first_catalogue(proposed, True).skills:
        faults.append(f"by: expected the name of who changed the catalogue, got {AUTOMATIC!r}")
    faults += [f"{id_}: is not one of the proposed skills" for id_ in sorted(edited.skills.keys() - ids)]
    faults += [f"{id_}: is missing; to drop it, say `drop: true`" for id_ in sorted(ids - edited.skills.keys())]
    moved: dict[str, str | None] = {}
    for id_ in sorted(ids & edited.skills.keys()):
        end, steps = id_, 0
        while (into := edited.skills[end].into) is not None and steps <= len(ids):
            if into not in edited.skills:
                break
            end, steps = into, steps + 1
        if into is not None:
            faults.append(f"{id_}: `into: {into}` is not a skill that stays")
        moved[id_] = None if edited.skills[end].drop else end
    kept = sorted({end for end in moved.values() if end is not None})
    if not kept:
        faults.append("no skill is left")
    names = [edited.skills[id_].name for id_ in kept]
    faults += [f"the name {name!r} is given twice" for name in sorted(set(names)) if names.count(name) > 1]
    if faults:
        raise UserError(f"{path}: the catalogue cannot be used:\n" + "\n".join(f"  {f}" for f in faults))
    by_id = {s.id: s for s in proposed.skills}
    skills = tuple(_skill(by_id[id_], edited, [i for i, end in moved.items() if end == id_ != i]) for id_ in kept)
    return SkillCatalogue(teacher=proposed.teacher, skills=skills), moved


def _skill(skill: Skill, edited: CatalogueFile, merged: list[str]) -> Skill:
    own = edited.skills[skill.id]
    aliases = [*own.aliases, *merged, *(alias for id_ in merged for alias in edited.skills[id_].aliases)]
    update = {"name": own.name, "description": own.description, "aliases": tuple(dict.fromkeys(aliases))}
    return skill.model_copy(update=update)


def mapped(skills: tuple[str, ...], moved: Mapping[str, str | None]) -> tuple[str, ...]:
    """A label's skills in the edited catalogue: merged ones once, dropped ones not."""
    ends = (moved.get(skill, skill) for skill in skills)
    return tuple(dict.fromkeys(end for end in ends if end is not None))
