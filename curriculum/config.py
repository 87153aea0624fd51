"""The config of a run: one tree of pydantic models, unknown keys refused, every fault reported at once.

`load_config` reads YAML and `--set` overrides and returns a `Config`, or raises one `ConfigError` that
lists all faults with their YAML lines. Keys marked operational may change within a run; all others are
the run's identity and are hashed. Nothing here reads the environment, and no validator rewrites a value.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from curriculum.config_yaml import key_lines, parse_yaml, set_key
from curriculum.data_config import (
    OPERATIONAL,
    ExtraName,
    ExtraSource,
    FileData,
    FileSource,
    GeneratorData,
    Section,
    Source,
    without_solutions,
)
from curriculum.errors import ConfigError
from curriculum.forecast_config import ForecastConfig
from curriculum.plan_config import PlanConfig
from curriculum.records import content_id
from curriculum.student_config import StudentConfig
from curriculum.teacher_config import TEACHING, Endpoint, Role, TeacherConfig
from curriculum.training_config import TrainingConfig

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class GateConfig(Section):
    """When a candidate adapter is accepted."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="chance of accepting a same-recipe retrain")
    alpha_per: Literal["run", "round"] = Field(
        default="run", description="whether that is the chance in any of the planned rounds, or in each"
    )
    retrain_sd: float = Field(
        default=0.02,
        ge=0,
        le=0.2,
        description="standard deviation of the true accuracy difference of two trainings that differ in the seed only",
    )


class BenchConfig(Section):
    """What only `tutelage bench` looks at."""

    warm_up_rows: int = Field(
        default=0,
        ge=0,
        description="even rows that every training has besides its own; the profile is taken after them",
    )
    at_once: int = Field(
        default=1,
        ge=1,
        le=64,
        description="trainings made at the same time, each in worker processes of its own: for a GPU with room",
        json_schema_extra=OPERATIONAL,
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
    control: Literal["none", "last_round", "every_round"] = Field(
        default="none",
        description="after which rounds a training with untargeted rows is made, to compare with; it decides nothing",
        json_schema_extra=OPERATIONAL,
    )
    data: Annotated[GeneratorData | FileData, Field(discriminator="kind")]
    extra: dict[ExtraName, ExtraSource] = Field(
        default_factory=dict,
        description="name → evaluation set, scored at the end; it never selects, unless it is marked `retention: true`",
    )
    student: StudentConfig = StudentConfig()
    teacher: TeacherConfig = TeacherConfig()
    plan: PlanConfig
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    bench: BenchConfig = BenchConfig()
    forecast: ForecastConfig = Field(default=ForecastConfig(), json_schema_extra=OPERATIONAL)

    @model_validator(mode="after")
    def _writable(self) -> "Config":
        if self.teacher.kind == "offline" and isinstance(self.data, FileData) and self.plan.write_share > 0:
            raise ValueError(
                f"plan.write_share is {self.plan.write_share}, but the offline teacher writes rows only for "
                "`data.kind: reasoning_gym`: set plan.write_share to 0, or teacher.kind to llm"
            )
        return self

    @model_validator(mode="after")
    def _has_its_roles(self) -> "Config":
        judged = [key for key, source in self._sources() if isinstance(source, FileSource) and source.grader == "judge"]
        if self.teacher.kind == "offline":
            asks = {"plan.by: llm": self.plan.by == "llm", "plan.complexity.solve": self.plan.complexity.solve}
            wanted = [f"`{key}.grader: judge`" for key in judged] + [f"`{key}`" for key, on in asks.items() if on]
            if wanted:
                raise ValueError(
                    f"{' and '.join(wanted)} asks a model, but the offline teacher calls nobody: set teacher.kind to "
                    "llm with teacher.model and teacher.base_url, or leave it out"
                )
            return self
        if self.teacher.second_judge is not None and not judged:
            raise ValueError("`teacher.second_judge` needs `grader: judge`: nothing else is judged")
        unpriced = [e.role for e in self.endpoints if e.prices is None and e.role not in TEACHING]
        if self.teacher.budget.money is not None and unpriced:
            raise ValueError(f"`teacher.budget.money` needs `prices` of every model; none for {', '.join(unpriced)}")
        return self

    @model_validator(mode="after")
    def _can_make_targets(self) -> "Config":
        if self.without_targets:
            raise ValueError(f"`plan.targets: {self.plan.targets}` {self.without_targets}")
        return self

    @property
    def without_targets(self) -> str:
        """Why the targets that `plan.targets` names cannot be made, and what to do; empty if they may be."""
        own = self.plan.own if self.plan.targets == "own" else None
        if own and self.training.loss == "dft" and own.mostly_own:
            return (
                f"with plan.own.cap {own.cap:g} and `training.loss: dft` both favour what the student writes already: "
                "lower plan.own.cap to 0.5, or set training.loss to sft"
            )
        if own and isinstance(self.data, FileSource) and self.data.grader == "judge":
            return "has every answer graded, and a judge would be paid for each: it needs another data.grader"
        if self.plan.targets in ("gold", "answers") or (own and not own.paraphrase):
            return ""
        written = self.teacher.kind == "llm" and (self.plan.write_share > 0 or self.plan.complexity.solve)
        fault = without_solutions(self.data, written and not own)
        what = "has worked solutions paraphrased" if own else "teaches worked solutions"
        instead = "plan.own.paraphrase to false" if own else "plan.targets to gold"
        return f"{what}, and {fault}: set {instead}, or give data with solutions" if fault else ""

    @model_validator(mode="after")
    def _profile_set_serves(self) -> "Config":
        sets = [name for name, source in self.extra.items() if source.profile_from is not None]
        if len(sets) > 1:
            raise ValueError(f"`profile_from`: expected one extra set that has it, got {', '.join(sorted(sets))}")
        others = {
            "retention": any(self.extra[name].retention for name in sets),
            "student.signals": self.student.signals is not None,
            "plan.allocation: expected_gain": self.plan.allocation == "expected_gain",
        }
        for name in sets:
            if got := [key for key, given in others.items() if given]:
                raise ValueError(
                    f"`extra.{name}.profile_from` changes what profiles are made of, so it does not go with "
                    f"{' and '.join(f'`{key}`' for key in got)}: leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _answers_can_disagree(self) -> "Config":
        judged = isinstance(self.data, FileSource) and self.data.grader == "judge"
        if judged and self.student.difficult == "disagreement":
            raise ValueError("`student.difficult: disagreement` goes with a grader that compares answers, not `judge`")
        return self

    def profile_set(self, round_: int | None = None) -> str | None:
        """The extra set that a round's profile is made of, or that of any round; none where it is always the probe."""
        for name, source in self.extra.items():
            if source.profile_from is not None and (round_ is None or round_ >= source.profile_from):
                return name
        return None

    def _sources(self) -> list[tuple[str, Source]]:
        return [("data", self.data), *((f"extra.{name}", source) for name, source in self.extra.items())]

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of an LLM teacher that a run asks."""
        judged = any(isinstance(s, FileSource) and s.grader == "judge" for s in self.sources)
        asked: dict[Role, bool] = {"plan": self.plan.by == "llm", "judge": judged}
        return (*TEACHING, *(role for role, wanted in asked.items() if wanted))

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where an LLM teacher's roles are asked, the second judge among them; empty for the offline teacher."""
        if self.teacher.kind == "offline":
            return []
        second = [self.teacher.second_judge_endpoint] if self.teacher.second_judge else []
        return [*(self.teacher.endpoint(role) for role in self.roles), *second]

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where items come from: for the splits, and for each extra set."""
        return (self.data, *self.extra.values())

    @property
    def retention_sets(self) -> list[str]:
        """The extra sets that candidates must not fall on, sorted."""
        return sorted(name for name, source in self.extra.items() if source.retention)

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


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The dotted keys that differ between two trees, sorted, each with both values."""
    old, new = flatten(before), flatten(after)
    return {key: [old.get(key), new.get(key)] for key in sorted(old | new) if old.get(key) != new.get(key)}


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
        root, tree = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(_encodable(f"{path}{f':{mark.line + 1}' if mark else ''}: not YAML: {error}")) from None
    if not isinstance(tree, dict) or root is None:
        raise ConfigError(f"{path}: expected keys such as `data` and `plan`, got {type(tree).__name__}")
    lines: dict[tuple[str, ...], int] = {}
    faults = [f"{path}:{line}: key `{'.'.join(key)}` is given twice" for key, line in key_lines(root, (), lines, set())]
    for override in overrides:
        faults += set_key(tree, override)
    config = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        faults += [_fault(path, e, lines) for e in _true_faults(error.errors())]
    if config is None or faults:
        raise ConfigError(_encodable("\n".join(faults)))
    return config


def _encodable(message: str) -> str:
    return message.encode("utf-8", "backslashreplace").decode()


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
