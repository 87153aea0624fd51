"""Naming the skills: fine names on a sample, merged into a catalogue (Didolkar et al. 2024, arXiv 2405.12205)."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from agents.asking import Asker, Question, reply_failures
from agents.ledger import Purpose
from agents.prompting import data_block, questions_block
from agents.replies import ONLY, MergedSkill, MergedSkills, NamedSkills, Rejected
from curriculum.config import Config
from curriculum.errors import UserError
from curriculum.records import Example, Skill, SkillCatalogue, content_id

QUESTIONS_PER_CALL = 10
NAMES_PER_CALL = 80
"""Fine names that are merged in one request; more are merged in several, and those merged again."""
MOST_PASSES = 4


async def name_skills(
    asker: Asker, config: Config, pool: Sequence[Example], say: Callable[[str], None]
) -> SkillCatalogue:
    """The skills of the pool's questions.

    Raises:
        UserError: too many requests failed, no question got a skill, or the names could not be merged.
    """
    settings = config.teacher.catalogue
    batches = sampled(config, pool)
    asked = [asker.ask(fine_question(asker, batch)) for batch in batches]
    items = sum(map(len, batches))
    replies = await asker.together("naming skills", "skills", asked, items, lambda r: reply_failures(r, "skills"))
    fine = sorted({skill for reply in replies for row in reply.rows.values() for skill in row.skills})
    if not fine:
        raise UserError("role skills: no question got a skill. Take another model, or teacher.catalogue.source: data")
    names, members = fine, {name: {name} for name in fine}
    for _ in range(MOST_PASSES):
        chunks = [names[at : at + NAMES_PER_CALL] for at in range(0, len(names), NAMES_PER_CALL)]
        merged = [skill for chunk in chunks for skill in await _merge(asker, chunk, settings.least, settings.most)]
        members = _members(merged, members)
        if len(chunks) == 1:
            break
        names = sorted(members)
    else:
        raise UserError(f"role skills: {len(fine)} names were not merged in {MOST_PASSES} passes. Take another model")
    described = {_slug(skill.name): skill for skill in reversed(merged)}
    left_out = len(fine) - len(set().union(*members.values()))
    say(f"skills: {len(members)} from {len(fine)} fine names" + (f", {left_out} of them left out" if left_out else ""))
    skills = [
        Skill(
            id=id_,
            name=id_.replace("_", " "),
            description=" ".join(described[id_].description.split()),
            aliases=tuple(sorted(members[id_] - {id_})),
            writable=True,
        )
        for id_ in sorted(members)
    ]
    return SkillCatalogue(teacher=config.teacher.endpoint("skills").model, skills=tuple(skills))


def sampled(config: Config, pool: Sequence[Example]) -> list[list[Example]]:
    """The pool questions that skills are named on, as many together as one request shows."""
    chosen = sorted(pool, key=lambda e: content_id([config.seed, e.id]))[: config.teacher.catalogue.sample]
    return [chosen[at : at + QUESTIONS_PER_CALL] for at in range(0, len(chosen), QUESTIONS_PER_CALL)]


def fine_question(asker: Asker, examples: Sequence[Example]) -> Question:
    """Asks for the fine skill names of some questions."""
    ids = [f"q{number}" for number in range(1, len(examples) + 1)]

    def check(row: NamedSkills) -> NamedSkills:
        names = [slug for slug in map(_slug, row.skills) if slug]
        if not names:
            raise Rejected("schema", "skills: expected names of lower-case words joined by underscores")
        return row.model_copy(update={"skills": names})

    text = asker.prompts["skills"].render(questions=questions_block(ids, examples))
    return Question(Purpose("skills"), "skills", text, NamedSkills, check, "rows", ids, {"id": ids})


def merge_question(asker: Asker, names: Sequence[str], least: int, most: int) -> Question:
    """Asks for a catalogue of so many skills from fine names."""

    def check(reply: MergedSkills) -> MergedSkills:
        kept = []
        for skill in reply.skills:
            members = [m for m in map(_slug, skill.members) if m in names]
            if _slug(skill.name) and members:
                kept.append(skill.model_copy(update={"members": members}))
        slugs = [_slug(skill.name) for skill in kept]
        if len(set(slugs)) < len(slugs) or not kept:
            raise Rejected("schema", "expected skills of different names, each with fine names of the list as members")
        if len(kept) > most:
            raise Rejected("schema", f"expected at most {most} skills, got {len(kept)}: merge more of them")
        return reply.model_copy(update={"skills": kept})

    text = asker.prompts["merge"].render(
        names=data_block("names", "\n".join(names)), least=str(min(least, len(names))), most=str(most)
    )
    return Question(Purpose("skills"), "merge", text, MergedSkills, check, enums={"members": names})


async def _merge(asker: Asker, names: Sequence[str], least: int, most: int) -> list[MergedSkill]:
    checked = await asker.ask(merge_question(asker, names, least, most))
    if ONLY not in checked.rows:
        fault = checked.faults[ONLY]
        raise UserError(
            f"role skills: the names could not be merged: {fault.kind}: {fault.reason[:200]}. Take another model for "
            "teacher.roles.skills in a new run, or teacher.catalogue.source: data"
        )
    skills: list[MergedSkill] = checked.rows[ONLY].skills
    return skills


def _members(merged: Sequence[MergedSkill], before: dict[str, set[str]]) -> dict[str, set[str]]:
    """Skill id → the finest names it stands for; a fine name that two claim stays with the first."""
    made: dict[str, set[str]] = {}
    taken: set[str] = set()
    for skill in merged:
        fine = set().union(*(before[m] for m in skill.members)) - taken
        made.setdefault(_slug(skill.name), set()).update(fine)
        taken |= fine
    return made


def _slug(name: str) -> str:
    """A name as an id: lower-case letters and digits joined by underscores, at most 60 characters."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[^\w]+|_+", "_", plain).strip("_")[:60].strip("_")
