"""The quickstart's evaluation items as a run would ask them, for benchmarks that answer."""

from pathlib import Path

from curriculum.config import Config, load_config
from curriculum.generator import generate_examples
from curriculum.prompts import system_prompt
from curriculum.records import Example
from curriculum.splits import split_examples
from student.chat_format import prompt_messages
from student.interface import Prompt

CONFIG = Path(__file__).parents[1] / "runs/configs/quickstart.yaml"


def final_items(base: str | None, count: int) -> tuple[Config, list[Example], list[Prompt]]:
    """The quickstart's config (with another base when one is given), and `count` of its final items with their prompts.

    The items are those of a run with the config's seed, in an order that mixes the tasks.
    """
    config = load_config(CONFIG, [f"student.base={base}"] if base else [])
    examples, _ = generate_examples(config.data, config.seed, "prepare")  # type: ignore[arg-type]
    split = split_examples(examples, config.data.splits, config.seed)
    items = sorted((e for e in split.examples if e.split == "final"), key=lambda e: e.id)[:count]
    system = system_prompt(config.student).text
    return config, items, [Prompt(e.id, "plain", prompt_messages(system, (), e.question)) for e in items]
