"""Records of what a server answered with, and how that was made sure."""

from typing import Literal

from pydantic import Field

from curriculum.records import Part, Record


class Canary(Part):
    """Whether the served weights are the trainer's, by log-probabilities of the same prompts.

    Distances are mean absolute differences in nats a token from what the trainer computes with its adapter.
    """

    verdict: Literal["same", "other", "undecidable"]
    prompts: int = Field(ge=1)
    tokens: int = Field(ge=1)
    served: float = Field(ge=0, description="of what the server computes")
    others: dict[str, float] = Field(description="of the base and of the adapter served before, by name")


class Serving(Record):
    """Which weights answered: what was served, the hashes of its files, and the checks it passed."""

    engine: str = Field(description="name and version")
    adapter: str
    how: Literal["base", "merged", "runtime"]
    model: str = Field(description="the name the server knows it by")
    dtype: str
    files: dict[str, str] = Field(description="file name → SHA-256, of the merged weights or of the adapter")
    same_text: int = Field(ge=0, description="items whose prompt server and trainer made the same tokens of")
    canary: Canary | None = Field(description="none for the base, where there is no adapter to tell apart")
