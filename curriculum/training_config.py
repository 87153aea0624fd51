"""The config's section on training."""

from typing import Literal

from pydantic import Field

from curriculum.data_config import Section


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
