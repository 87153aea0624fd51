"""The records of what is made of trained adapters: one scaled with depth (LiNeS), several averaged (a soup).

Records as those of `records`, under the same rules.
"""

from pydantic import Field

from curriculum.records import Part, Rate, Record


class Ingredient(Part):
    """A trained adapter as it goes into another one."""

    adapter: str
    round: int = Field(ge=1, description="that trained it")
    a: float = Field(ge=0, le=1, description="what its first layer's ΔW is multiplied by; the deepest layer keeps 1")
    files: dict[str, str] = Field(description="file name → SHA-256, as it was trained")


class Merged(Part):
    """What an adapter was made of: its ΔW is the mean of its ingredients', each scaled with depth."""

    ingredients: tuple[Ingredient, ...]
    rank: int = Field(ge=0)
    norm: float = Field(ge=0, description="Frobenius norm of ΔW over all layers")
    error: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="norm of what the way back to a lower rank left out, as a share of the whole; none without",
    )


class LinesCandidate(Part):
    """A trained adapter scaled with depth, on the items that choose."""

    adapter: str
    a: float = Field(ge=0, le=1)
    right: Rate = Field(description="of all items that choose")
    missing: Rate = Field(description="of those that the current adapter does not answer right")
    kept: Rate = Field(description="of those that the current adapter answers right")
    score: float = Field(ge=0, description="(2 · missing / missing at a = 1 + kept / all of them) / 3")
    chosen: bool


class LinesChoice(Record):
    """Which scale of depth a round's adapter goes on with."""

    round: int
    halved: bool = Field(description="whether half of the probe chose, for the other half chooses the soup")
    candidates: tuple[LinesCandidate, ...] = Field(description="from a = 1, the adapter as it was trained, down")

    @property
    def chosen(self) -> LinesCandidate:
        """The one that goes on."""
        return next(c for c in self.candidates if c.chosen)


class SoupStep(Part):
    """An earlier adapter that the mean was tried with."""

    adapter: str = Field(description="with its own scale of depth, never a soup")
    round: int
    alone: Rate = Field(description="of the items that choose, by itself")
    soup: str = Field(description="the mean of it and of all that were taken before")
    together: Rate = Field(description="of the items that choose, by that mean")
    accepted: bool


class SoupChoice(Record):
    """Which earlier adapters a round's adapter is averaged with."""

    round: int
    halved: bool = Field(description="whether half of the probe chose, for the other half chooses LiNeS' scale")
    adapter: str = Field(description="the round's own, which the soup begins with")
    alone: Rate = Field(description="of the items that choose")
    steps: tuple[SoupStep, ...] = Field(description="in the order tried: the best by itself first")

    @property
    def taken(self) -> tuple[SoupStep, ...]:
        """The steps that were accepted."""
        return tuple(step for step in self.steps if step.accepted)
