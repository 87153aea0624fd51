"""Where the templates of every view are rendered: strict, escaped, with the modules that word what they show."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from curriculum import (
    report_allocation,
    report_cost,
    report_details,
    report_evidence,
    report_methods,
    report_probe,
    report_ranking,
    report_skills,
    report_words,
    teacher_words,
)


def templates(finalize: Callable[[Any], Any]) -> Environment:
    """The templates of a medium; `finalize` makes of each value what may stand in it."""
    made = Environment(
        loader=PackageLoader("curriculum"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {
        "words": report_words,
        "teacher_words": teacher_words,
        "rules": report_allocation,
        "evidence": report_evidence,
        "probes": report_probe,
        "skills": report_skills,
        "cost": report_cost,
        "details": report_details,
        "ranking": report_ranking,
        "methods": report_methods,
    }
    return made
