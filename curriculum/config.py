"""The config of a run: one tree of pydantic models, unknown keys refused, every fault reported at once.

`load_config` reads YAML and `--set` overrides and returns a `Config`, or raises one `ConfigError` that
lists all faults with their YAML lines. Keys marked operational may change within a run; all others are
the run's identity and are hashed. Nothing here reads the environment, and no validator rewrites a value.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from curriculum.data_config import OPERATIONAL, ExtraName, ExtraSource, FileData, GeneratorData, Section, Source
from curriculum.errors import ConfigError
from curriculum.forecast_config import ForecastConfig
from curriculum.records import content_id
from curriculum.student_config import StudentConfig
from curriculum.teacher_config import TeacherConfig

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80
MOST_DIGITS = 400
"""Of a number; Python itself prints no whole number of more than 4,300."""


class PlanConfig(Section):
    """How a round's rows are chosen."""

    rows_per_round: int = Field(gt=0, le=10_000_000, description="new rows each round")
    write_share: float = Field(default=0.5, ge=0, le=1, description="share of the new rows that are written")
    uniform_floor: float = Field(default=0.15, ge=0, le=1, description="share of the rows spread evenly over skills")
    max_repeats: int = Field(default=4, ge=1, description="most uses of one example in a training set")
    replay_rows: int | None = Field(default=None, ge=0, description="accepted rows trained again; null takes all")
    patience: int = Field(default=3, ge=1, description="rollbacks in a row that stop the run")
    target_rate: float = Field(default=0.95, gt=0, le=1, description="probe accuracy at which a skill is mastered")
    approve: bool = Field(default=False, description="wait for a person after each plan", json_schema_extra=OPERATIONAL)

    @property
    def written_rows(self) -> int:
        """New rows of a round that are to be written, as far as the skills allow."""
        return round(self.write_share * self.rows_per_round)


class TrainingConfig(Section):
    """LoRA supervised fine-tuning."""

    start: Literal["base", "accepted"] = Field(
        default="base", description="a fresh adapter on the base each round, or go on from the accepted adapter"
    )
    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    epochs: int = Field(default=2, gt=0)
    batch_tokens: int = Field(default=2048, gt=0, description="most tokens in one batch, padding included")
    warmup_share: float = Field(default=0.05, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=1024, gt=0, description="tokens; longer rows are dropped and counted")
    processes: int = Field(
        default=1, gt=0, le=64, description="that train together, one a GPU, each with its part of every batch"
    )


class GateConfig(Section):
    """When a candidate adapter is accepted."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="chance of accepting a same-recipe retrain")
    retrain_sd: float = Field(
        default=0.02,
        ge=0,
        le=0.2,
        description="standard deviation of the true accuracy difference of two trainings that differ in the seed only",
    )


class Config(Section):
    """The whole config of a run."""

    rounds: int = Field(default=3, ge=1, description="rounds to run", json_schema_extra=OPERATIONAL)
    seed: int = Field(default=0, ge=0)
    runs_dir: Path = Field(
        default=Path("runs"), description="where run folders are made", json_schema_extra=OPERATIONAL
    )
    trackers: list[Literal["tensorboard", "trackio", "mlflow", "wandb"]] = Field(
        default_factory=list,
        description="who else gets what the report says, in runs_dir/trackers; W&B offline",
        json_schema_extra=OPERATIONAL,
    )
    data: Annotated[GeneratorData | FileData, Field(discriminator="kind")]
    extra: dict[ExtraName, ExtraSource] = Field(
        default_factory=dict,
        description="name → evaluation set that is scored at the end and never selects: retention, out of distribution",
    )
    student: StudentConfig = StudentConfig()
    teacher: TeacherConfig = TeacherConfig()
    plan: PlanConfig
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    forecast: ForecastConfig = Field(default=ForecastConfig(), json_schema_extra=OPERATIONAL)

    @model_validator(mode="after")
    def _writable(self) -> "Config":
        if self.teacher.kind == "offline" and isinstance(self.data, FileData) and self.plan.write_share > 0:
            raise ValueError(
                f"plan.write_share is {self.plan.write_share}, but the offline teacher writes rows only for "
                "`data.kind: reasoning_gym`: set plan.write_share to 0, or teacher.kind to llm"
            )
        return self

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where items come from: for the splits, and for each extra set."""
        return (self.data, *self.extra.values())

    def identity(self) -> dict[str, Any]:
        """The part that may not change within a run, as plain JSON values."""
        return _without_operational(self)

    @property
    def identity_hash(self) -> str:
        """Hash of `identity`, independent of the order of keys."""
        return content_id(self.identity(), 64)


def _without_operational(section: BaseModel) -> dict[str, Any]:
    plain = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("operational"):
            del plain[name]
        elif isinstance(value, BaseModel):
            plain[name] = _without_operational(value)
    return plain


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`: dotted keys as `--set` takes them; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file, applies `a.b=c` overrides in order, and checks everything.

    Raises:
        ConfigError: with every fault found, each with its line in the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a config file, got: {error.strerror}. Shipped ones: runs/configs/"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#x} at {error.start}"
        ) from None
    try:
        root, tree = _parse(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(_encodable(f"{path}{f':{mark.line + 1}' if mark else ''}: not YAML: {error}")) from None
    if not isinstance(tree, dict) or root is None:
        raise ConfigError(f"{path}: expected keys such as `data` and `plan`, got {type(tree).__name__}")
    lines: dict[tuple[str, ...], int] = {}
    faults = [f"{path}:{line}: key `{'.'.join(key)}` is given twice" for key, line in _walk(root, (), lines, set())]
    for override in overrides:
        faults += _override(tree, override)
    config = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        faults += [_fault(path, e, lines) for e in _true_faults(error.errors())]
    if config is None or faults:
        raise ConfigError(_encodable("\n".join(faults)))
    return config


class _Loader(yaml.SafeLoader):
    """Plain values only, and no number that Python could not print again."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            what = f"a number of {len(node.value)} digits, more than {MOST_DIGITS}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _parse(text: str) -> tuple[yaml.Node | None, Any]:
    """A document's nodes and its values; whatever is wrong with it raises `yaml.YAMLError`."""
    try:
        return yaml.compose(text, Loader=_Loader), yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except Exception as error:  # PyYAML lets through whatever Python's numbers, dates and tables raise
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None


def _encodable(message: str) -> str:
    return message.encode("utf-8", "backslashreplace").decode()


def _walk(
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
            yield from _walk(value, here, lines, walked)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = (*at, str(index))
            lines[here] = value.start_mark.line + 1
            yield from _walk(value, here, lines, walked)


def _override(tree: dict[str, Any], override: str) -> list[str]:
    """Applies one `a.b=c`; returns the faults."""
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        return [f"--set {override}: expected key=value, such as plan.rows_per_round=100"]
    try:
        value = _parse(text)[1]
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


def _true_faults(errors: Sequence[Any]) -> list[Any]:
    """Without lists that are too short only because pydantic left their faulty entries out."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(len(at) > len(error["loc"]) and at[: len(error["loc"])] == error["loc"] for at in places)
    ]


def _fault(path: Path, error: Any, lines: Mapping[tuple[str, ...], int]) -> str:
    # pydantic puts the union's tag into the location, after `data` and after a set's name in `extra`.
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    tag = 1 if parts[:1] == ["data"] else 2
    where = tuple(p for at, p in enumerate(parts) if at != tag or p not in ("reasoning_gym", "file"))
    known = where
    while known and known not in lines:
        known = known[:-1]
    at = f"{path}:{lines[known]}" if known else str(path)
    key = ".".join(where) or "config"
    if error["type"] == "extra_forbidden":
        return f"{at}: unknown key `{key}`"
    if error["type"] == "missing":
        return f"{at}: key `{key}` is missing"
    message = error["msg"].removeprefix("Value error, ")
    if not where or (error["type"] == "value_error" and isinstance(error.get("input"), dict)):
        return f"{at}: {message}"
    return f"{at}: `{key}`: {message}, got {_SHORT.repr(error.get('input'))}"
