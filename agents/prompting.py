"""How a prompt shows what is not ours: questions, answers, skills, each as data between tags it cannot close."""

import itertools
import re
from collections.abc import Mapping, Sequence

from agents.replies import Rejected
from curriculum.prompts import Prompt, load_prompt
from curriculum.records import Example, SkillCatalogue, content_id

PROMPTS = ("skills", "merge", "label", "diagnose", "write", "solve", "plan", "judge", "repair")

TURN_MARKS = re.compile(r"<(?=[|｜]|/?s>|(?:start|end)_of_turn>)|\[(?=/?INST\])")
"""What begins a mark of a chat template."""


def load_prompts() -> dict[str, Prompt]:
    """The teacher's prompts by their short names; raises `ConfigError` when one breaks the format."""
    return {name: load_prompt(f"teacher_{name}") for name in PROMPTS}


def data_block(tag: str, text: str) -> str:
    """Foreign text between tags that it cannot close: they carry a hash of the text itself that is not in it.

    Marks of chat templates (`<|…|>`, `<s>`, `[INST]`, `<start_of_turn>`) are broken by a space: some servers read
    them as the end of a turn wherever they stand.
    """
    clean = TURN_MARKS.sub(lambda found: f"{found[0]} ", text.encode("utf-8", "replace").decode())
    codes = (content_id([clean, count], 8) if count else content_id(clean, 8) for count in itertools.count())
    mark = f"{tag} {next(code for code in codes if code not in clean)}"
    return f"<{mark}>\n{clean}\n</{mark}>"


def skill_list(catalogue: SkillCatalogue) -> str:
    """The catalogue as the prompts show it."""
    lines = [f"{s.id}: {s.description or s.name}" for s in catalogue.skills]
    return data_block("skills", "\n".join(" ".join(line.split()) for line in lines))


def skill_ids(catalogue: SkillCatalogue) -> dict[str, str]:
    """How a skill may be called in a reply → its id; ids and names, whatever the case and the spaces."""
    return {name: s.id for s in catalogue.skills for name in (_plain(s.name), _plain(s.id))}


def resolved(skills: Sequence[str], known: Mapping[str, str]) -> list[str]:
    """The ids of the skills, each once; raises `Rejected` when one is not in the catalogue."""
    strange = [skill for skill in skills if _plain(skill) not in known]
    if strange:
        raise Rejected("unknown_skill", f"{strange[0][:60]!r} is not the id of a skill of the list")
    return list(dict.fromkeys(known[_plain(skill)] for skill in skills))


def question_text(example: Example) -> str:
    """A question with the turns before it."""
    return "\n".join([*(f"{turn.role}: {turn.content}" for turn in example.history), example.question])


def questions_block(ids: Sequence[str], examples: Sequence[Example]) -> str:
    """Questions as data, each between tags of its own."""
    return "\n\n".join(data_block(id_, question_text(e)) for id_, e in zip(ids, examples, strict=True))


def _plain(name: str) -> str:
    return "_".join(name.casefold().replace("_", " ").replace("-", " ").split())
