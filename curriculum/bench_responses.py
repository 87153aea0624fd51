"""Response tokens in a bench: what strategies with shorter targets save beside uniform's, and at which accuracy.

Source: Goncharov et al. 2025 (arXiv 2506.21220) count data in response tokens, and claim 81 % fewer at equal accuracy.
"""

from collections.abc import Sequence
from statistics import fmean

from pydantic import Field

from curriculum.crossed import Difference, Right, difference, seed_scatter
from curriculum.records import Part
from curriculum.round_records import Adapter


class ResponseSaving(Part):
    """One strategy's response tokens and accuracy beside those of uniform's trainings, uniform_again's among them."""

    tokens: float = Field(ge=0, description="that carried loss, all epochs, mean over trainings")
    uniform_tokens: float = Field(ge=0)
    saved: float | None = Field(description="share of uniform's; negative where there are more; none where it has none")
    rows: float = Field(ge=0, description="of a training, on average")
    uniform_rows: float = Field(ge=0)
    row_saved: float | None = Field(description="the same share for one row: what is saved on as many rows")
    gain: float = Field(description="accuracy over uniform's, in shares of 1")
    against: Difference | None = Field(description="the same with its interval; none where seeds are too few")


def response_saving(
    own: Sequence[Adapter], even: Sequence[Adapter], way: Right, even_way: Right, groups: Sequence[Right] | None
) -> ResponseSaving:
    """What a strategy saves.

    Args:
        own: the adapters of its trainings.
        even: those of uniform and uniform_again.
        way: trainings × items, right or not; its own.
        even_way: that of the others.
        groups: all trainings by recipe, for the seeds' scatter; none where there are too few for an interval.
    """
    tokens, uniform = (fmean(a.target_tokens for a in of) for of in (own, even))
    rows, uniform_rows = (fmean(a.rows for a in of) for of in (own, even))
    each, uniform_each = (t / r if r else 0.0 for t, r in ((tokens, rows), (uniform, uniform_rows)))
    return ResponseSaving(
        tokens=tokens,
        uniform_tokens=uniform,
        saved=1 - tokens / uniform if uniform else None,
        rows=rows,
        uniform_rows=uniform_rows,
        row_saved=1 - each / uniform_each if uniform_each else None,
        gain=float(way.mean() - even_way.mean()),
        against=difference(way, even_way, seed_scatter(groups)) if groups else None,
    )
