"""Where the templates of every view are rendered: strict, escaped, with the modules that word what they show."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from curriculum import report_allocation, report_evidence, report_methods, report_probe, report_words, teacher_words


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
        "methods": report_methods,
    }
    return made
