"""The config's section on training."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from curriculum.data_config import Section
from curriculum.round_records import TrainingRow


class IcaConfig(Section):
    """In-context approximation: rows count by how much demonstrations of a holdout lower their loss."""

    neighbours: int = Field(default=3, ge=1, le=32, description="demonstrations: the nearest of the holdout")
    refresh: int = Field(default=1, ge=1, le=1000, description="times that rows are scored, evenly over the steps")
    normalise: Literal["set", "batch"] = Field(
        default="set", description="weights are max–min over the whole training set, or over the rows of each step"
    )
    subtract_random: bool = Field(
        default=False, description="score less what random demonstrations do: what is left is not the format alone"
    )
    holdout_share: float = Field(
        default=0.1, gt=0, le=0.5, description="of each skill's pool groups, set aside for demonstrations, never taught"
    )


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
    scoring_batch_tokens: int | None = Field(
        default=None,
        gt=0,
        description="most tokens in one batch of rows that are scored and not taught (rankings, in-context weights); "
        "null takes batch_tokens, more is faster on a GPU with room",
    )
    warmup_share: float = Field(default=0.05, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=1024, gt=0, description="tokens; longer rows are dropped and counted")
    weights: Literal["none", "ica"] = Field(
        default="none",
        description="what each row's loss is multiplied by: 1, or its weight by in-context approximation",
    )
    ica: IcaConfig = IcaConfig()
    loss: Literal["sft", "dft"] = Field(
        default="sft", description="cross entropy, or cross entropy times the token's own probability, held constant"
    )
    dft_skills: list[str] = Field(default=[], description="skills whose rows get the loss dft; empty: all skills")
    lines: tuple[float, ...] | None = Field(
        default=None,
        description="LiNeS: values to try of what the first layer's update is multiplied by after training, 1 among "
        "them; the deepest layer keeps 1, the probe chooses. null tries none",
    )
    soup: bool = Field(
        default=False,
        description="average the round's adapter with those of earlier rounds as far as the probe answers get no worse",
    )
    processes: int = Field(
        default=1, gt=0, le=64, description="that train together, one a GPU, each with its part of every batch"
    )

    @property
    def scored_tokens(self) -> int:
        """Most tokens of a batch of rows that are scored."""
        return self.scoring_batch_tokens or self.batch_tokens

    @property
    def memory_keys(self) -> dict[str, int]:
        """What to lower where memory runs out."""
        keys = {"batch_tokens": self.batch_tokens, "max_length": self.max_length, "rank": self.rank}
        return keys | ({"scoring_batch_tokens": self.scoring_batch_tokens} if self.scoring_batch_tokens else {})

    def has_dft(self, row: TrainingRow) -> bool:
        """Whether a row is taught by the loss dft."""
        return self.loss == "dft" and (not self.dft_skills or not {row.skill, *row.skills}.isdisjoint(self.dft_skills))

    @field_validator("lines")
    @classmethod
    def _scales(cls, lines: tuple[float, ...] | None) -> tuple[float, ...] | None:
        differ = len({f"{a:g}" for a in lines or ()}) == len(lines or ())
        if lines and not (1 in lines and differ and all(0 <= a <= 1 for a in lines)):
            raise ValueError("expected different numbers from 0 to 1 with 1, which changes nothing, among them")
        return lines

    @model_validator(mode="after")
    def _skills_have_a_loss(self) -> "TrainingConfig":
        if self.dft_skills and self.loss != "dft":
            raise ValueError("`training.dft_skills` needs `training.loss: dft`: otherwise no row gets that loss")
        return self
