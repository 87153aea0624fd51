"""The config's section on the teacher: no LLM, or any OpenAI-compatible model, each role its own if wanted.

Takes what the YAML says and resolves, for every role, one `Endpoint`: model, address, what it can do, what it
costs. Keys are never here: the config names environment variables, the client reads them.
"""

from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, model_validator

from curriculum.addresses import SECRET, check_url
from curriculum.data_config import OPERATIONAL, Section

Role = Literal["skills", "label", "diagnose", "write", "solve", "plan", "judge"]
ROLES: tuple[Role, ...] = get_args(Role)
TEACHING: tuple[Role, ...] = ("skills", "label", "diagnose", "write", "solve")
"""The roles that every run asks; `Config.roles` has those of one."""
Structured = Literal["json_schema", "json_object", "prompt"]
TokenField = Literal["max_tokens", "max_completion_tokens"]
Provider = Literal["openai", "vllm", "ollama", "other"]


class Preset(NamedTuple):
    """What a kind of server is known to take."""

    structured: Structured
    token_field: TokenField
    seed: bool
    key_variable: str | None
    note: str


PRESETS: dict[Provider, Preset] = {
    "openai": Preset(
        "json_schema", "max_completion_tokens", True, "OPENAI_API_KEY", "unverified: by its documentation, 2026-11-22"
    ),
    "vllm": Preset("json_schema", "max_tokens", True, None, "tested with vLLM 0.32 for CPUs, 2026-11-22"),
    "ollama": Preset(
        "json_schema",
        "max_tokens",
        True,
        None,
        "unverified: by its documentation, 2026-11-22; its cloud takes the schema and ignores it",
    ),
    "other": Preset("prompt", "max_tokens", False, None, "a template: asks for nothing that a server may refuse"),
}
TEMPERATURES: dict[Role, float] = {"write": 0.8, "solve": 0.7}
"""Where a role's temperature is not given; 0 for the others. Solutions have to be independent."""


class Prices(Section):
    """What a model costs, per million tokens, all in one currency of yours."""

    input: float = Field(ge=0)
    output: float = Field(ge=0, description="reasoning tokens are output")
    cached_input: float | None = Field(default=None, ge=0, description="null: as input")


class Budget(Section):
    """Hard limits of a run. Reaching one stops it cleanly; raise it and resume. Null is no limit."""

    requests: int | None = Field(default=None, ge=0, description="sent, answered or not", json_schema_extra=OPERATIONAL)
    tokens: int | None = Field(default=None, ge=0, description="prompt and completion", json_schema_extra=OPERATIONAL)
    money: float | None = Field(
        default=None, ge=0, description="in the currency of prices", json_schema_extra=OPERATIONAL
    )


class EndpointKeys(Section):
    """Where a model is asked, and how. Null takes the preset's, for a role first the teacher's."""

    model: str | None = Field(default=None, min_length=1, max_length=200)
    base_url: str | None = Field(
        default=None,
        description="such as https://api.openai.com/v1; https, or http to this machine; no credentials or query in it",
        json_schema_extra=OPERATIONAL,
    )
    provider: Provider | None = Field(
        default=None, description="preset; null is `openai` for api.openai.com and `other` for all else"
    )
    key_variable: str | None = Field(
        default=None, description="environment variable that holds the key", json_schema_extra=OPERATIONAL
    )
    structured: Structured | None = Field(default=None, description="how JSON is asked for")
    token_field: TokenField | None = Field(default=None, description="name of the limit on reply tokens")
    seed: bool | None = Field(default=None, description="whether a seed is sent")
    temperature: float | Literal["unset"] | None = Field(
        default=None, description="null: 0.8 to write, 0.7 to solve, else 0; `unset` sends none"
    )
    max_tokens: int | None = Field(default=None, gt=0, le=1_000_000, description="of a reply; null: 2048")
    concurrency: int | None = Field(
        default=None, gt=0, le=1000, description="most requests at once; null: 8", json_schema_extra=OPERATIONAL
    )
    prices: Prices | None = Field(default=None, json_schema_extra=OPERATIONAL)
    extra_body: dict[str, JsonValue] | None = Field(default=None, description="sent with each request as it is")

    @model_validator(mode="after")
    def _address(self) -> "EndpointKeys":
        # Here and not in a field's own check, whose message would repeat what may hold a secret.
        if self.base_url is not None:
            check_url(self.base_url, "base_url")
        name = self.key_variable
        if name is not None and not (name.replace("_", "").isalnum() and name.isascii() and name == name.upper()):
            raise ValueError(
                "`key_variable`: expected the name of an environment variable in capitals, such as OPENAI_API_KEY, got "
                "something else (not shown: it could be a key). Keys stay out of configs"
            )
        if name is not None and not any(word in name for word in SECRET):
            raise ValueError(
                f"`key_variable`: expected a name with one of {', '.join(SECRET)} in it, such as TEACHER_KEY, got "
                "another: worker processes are given all other variables"
            )
        return self


class Roles(Section):
    """A model of its own for a role."""

    skills: EndpointKeys = EndpointKeys()
    label: EndpointKeys = EndpointKeys()
    diagnose: EndpointKeys = EndpointKeys()
    write: EndpointKeys = EndpointKeys()
    solve: EndpointKeys = EndpointKeys()
    plan: EndpointKeys = EndpointKeys()
    judge: EndpointKeys = EndpointKeys()


class SecondJudge(EndpointKeys):
    """Another model that judges a sample of the answers again, so that agreement can be measured. It decides nothing.

    What it does not say is taken from the teacher, not from `roles.judge`.
    """

    share: float = Field(default=0.1, gt=0, le=1, description="of the judged answers")

    @model_validator(mode="after")
    def _named(self) -> "SecondJudge":
        if self.model is None:
            raise ValueError("expected a `model` of its own: one judge asked twice agrees with itself")
        return self


class CatalogueConfig(Section):
    """Where the skills come from."""

    source: Literal["teacher", "data"] = Field(
        default="teacher", description="the teacher names skills on a sample; or those the data declare, as they are"
    )
    sample: int = Field(default=60, gt=0, description="pool questions the skills are named on")
    least: int = Field(default=15, gt=0, description="skills wanted")
    most: int = Field(default=25, gt=0, description="skills allowed")
    approve: bool = Field(
        default=False, description="wait for a person to edit catalogue.yaml", json_schema_extra=OPERATIONAL
    )

    @model_validator(mode="after")
    def _ordered(self) -> "CatalogueConfig":
        if self.least > self.most:
            raise ValueError(f"expected `least` to be at most `most`, got {self.least} and {self.most}")
        return self


class Endpoint(NamedTuple):
    """All that a role's requests need; made by `TeacherConfig.endpoint`."""

    role: Role
    model: str
    base_url: str
    key_variable: str | None
    structured: Structured
    token_field: TokenField
    seed: bool
    temperature: float | None
    max_tokens: int
    concurrency: int
    prices: Prices | None
    extra_body: dict[str, JsonValue]


class TeacherConfig(EndpointKeys):
    """Who labels, diagnoses and writes."""

    kind: Literal["offline", "llm"] = Field(
        default="offline", description="offline is no LLM: the data set's own metadata; llm: `model` at `base_url`"
    )
    roles: Roles = Roles()
    second_judge: SecondJudge | None = None
    budget: Budget = Budget()
    catalogue: CatalogueConfig = CatalogueConfig()
    labels: Literal["teacher", "data"] = Field(
        default="teacher", description="data: the skills and difficulty that rows declare, no calls"
    )
    rows_per_call: int = Field(default=4, gt=0, le=50, description="questions labelled in one request")
    repeat_diagnoses: int = Field(
        default=0, ge=0, description="failures a round that are diagnosed once more: do the diagnoses repeat?"
    )
    max_failed_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of a step's items without a usable reply that stops the run",
        json_schema_extra=OPERATIONAL,
    )
    timeout_seconds: float = Field(default=180.0, gt=0, description="of one request", json_schema_extra=OPERATIONAL)
    backoff_seconds: float = Field(
        default=0.5,
        ge=0,
        le=60,
        description="before a failed request is repeated, doubled each time; a server's Retry-After holds instead",
        json_schema_extra=OPERATIONAL,
    )
    attempts: int = Field(
        default=6,
        gt=0,
        le=50,
        description="requests for one reply, failed ones included",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="after")
    def _whole(self) -> "TeacherConfig":
        if self.kind == "offline":
            given = sorted(self.model_fields_set & EndpointKeys.model_fields.keys())
            if any(getattr(self, name) is not None for name in given):
                raise ValueError(f"`teacher.{given[0]}` is for `kind: llm`; the offline teacher calls nobody")
            if self.second_judge is not None:
                raise ValueError("`teacher.second_judge` is for `kind: llm`; the offline teacher calls nobody")
            if self.repeat_diagnoses:
                raise ValueError("`teacher.repeat_diagnoses` is for `kind: llm`; the offline teacher repeats itself")
            return self
        missing = [f"`teacher.{name}`" for name in ("model", "base_url") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"`kind: llm` needs {' and '.join(missing)}")
        if self.labels == "data" and self.catalogue.source != "data":
            raise ValueError("`labels: data` needs `catalogue: {source: data}`: those labels are the data's own skills")
        unpriced = [role for role in TEACHING if self.endpoint(role).prices is None]
        if self.budget.money is not None and unpriced:
            raise ValueError(
                f"`budget.money` needs `prices` of the model of every role; none for {', '.join(unpriced)}"
            )
        return self

    @property
    def called(self) -> str:
        """What reports call it: `offline`, or the model."""
        return self.kind if self.kind == "offline" else str(self.model)

    @property
    def second_judge_endpoint(self) -> Endpoint:
        """What the second judge's requests need; they count as the role `judge`."""
        assert self.second_judge is not None
        return self.endpoint("judge", self.second_judge)

    def endpoint(self, role: Role, keys: EndpointKeys | None = None) -> Endpoint:
        """What a role's requests need; with `keys` in place of the role's own.

        What belongs to an address (key, preset, prices) is not taken over by a role that has another one, nor
        are prices by a role with another model: no key goes where it was not meant to go.
        """
        own: EndpointKeys = keys or getattr(self.roles, role)
        moved = own.base_url is not None and own.base_url != self.base_url
        base_url, model = own.base_url or self.base_url, own.model or self.model
        if base_url is None or model is None:
            raise ValueError("expected a teacher of kind llm")
        provider = own.provider or (None if moved else self.provider)
        if provider is None:
            provider = "openai" if urlsplit(base_url).hostname == "api.openai.com" else "other"
        preset = PRESETS[provider]

        def pick(name: str, otherwise: Any, of_address: bool = False) -> Any:
            value = getattr(own, name)
            if value is None and not (of_address and moved):
                value = getattr(self, name)
            return otherwise if value is None else value

        temperature = pick("temperature", TEMPERATURES.get(role, 0.0))
        same_model = own.model in (None, self.model) and not moved
        return Endpoint(
            role=role,
            model=model,
            base_url=base_url.rstrip("/"),
            key_variable=pick("key_variable", preset.key_variable, True),
            structured=pick("structured", preset.structured, True),
            token_field=pick("token_field", preset.token_field, True),
            seed=pick("seed", preset.seed, True),
            temperature=None if temperature == "unset" else temperature,
            max_tokens=pick("max_tokens", 2048),
            concurrency=pick("concurrency", 8),
            prices=own.prices or (self.prices if same_model else None),
            extra_body=dict(pick("extra_body", {}, True)),
        )
