"""A config's YAML: plain values, the line of every key, and `a.b=c` written over it."""

from collections.abc import Iterator
from typing import Any

import yaml

MOST_DIGITS = 400
"""Of a number; Python itself prints no whole number of more than 4,300."""


class _Loader(yaml.SafeLoader):
    """Plain values only, and no number that Python could not print again."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            what = f"a number of {len(node.value)} digits, more than {MOST_DIGITS}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """A document's nodes and its values; whatever is wrong with it raises `yaml.YAMLError`."""
    try:
        return yaml.compose(text, Loader=_Loader), yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except Exception as error:  # PyYAML lets through whatever Python's numbers, dates and tables raise
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None


def key_lines(
    node: yaml.Node, at: tuple[str, ...], lines: dict[tuple[str, ...], int], walked: set[int]
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Records the line of every key in `lines`; yields the keys that are given twice.

    What an alias repeats is walked once, so that a node inside itself ends.
    """
    if id(node) in walked:
        return
    walked.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                yield here, line
            lines[here] = line
            yield from key_lines(value, here, lines, walked)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = (*at, str(index))
            lines[here] = value.start_mark.line + 1
            yield from key_lines(value, here, lines, walked)


def set_key(tree: dict[str, Any], override: str) -> list[str]:
    """Applies one `a.b=c`; returns the faults."""
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        return [f"--set {override}: expected key=value, such as plan.rows_per_round=100"]
    try:
        value = parse_yaml(text)[1]
    except yaml.YAMLError as error:
        return [f"--set {override[:80]}: the value is not YAML: {error}"]
    here = tree
    for depth, key in enumerate(keys[:-1]):
        inner = here.setdefault(key, {})
        if not isinstance(inner, dict):
            return [f"--set {override}: `{'.'.join(keys[: depth + 1])}` is a value, not a section"]
        here = inner
    here[keys[-1]] = value
    return []
