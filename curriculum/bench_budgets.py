"""The budgets of a bench: shares of the tokens that `plan.rows_per_round` rows cost.

Takes what all strategies plan from at the whole budget; returns the same for a share of it. The best difficulty depends
on the number of rows (Liu et al. 2026, arXiv 2605.12906), so that strategies may lead at one budget and not at another.
"""

from curriculum.config import Config
from curriculum.errors import UserError
from curriculum.rows import printable
from curriculum.strategies import Materials

WHOLE = 1.0
MOST = 100.0
"""The largest budget; what the pool cannot give is on record as short."""


def parse_budgets(text: str) -> tuple[float, ...]:
    """`1,0.25` → the shares, smallest first, each once.

    Raises:
        UserError: a text is no share from above 0 to 100 with at most four digits; all such texts are told.
    """
    texts = [part.strip() for part in text.split(",") if part.strip()]
    shares = {part: _share(part) for part in texts}
    wrong = [part for part, share in shares.items() if share is None]
    if wrong or not texts:
        got = ", ".join(printable(part) for part in wrong) or "none"
        raise UserError(
            "--budgets: expected shares of plan.rows_per_round's tokens above 0 and up to 100, with at most four "
            f"digits and commas between, such as 0.25,0.5,1, got {got}"
        )
    return tuple(sorted({share for share in shares.values() if share is not None}))


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 < share <= MOST and float(f"{share:.4g}") == share else None


def budget_words(share: float) -> str:
    """`0.25`: as folders, tables and options name it."""
    return f"{share:.4g}"


def budget_rows(config: Config, share: float) -> int:
    """The rows, of the pool's mean length, that a budget's tokens are those of.

    Raises:
        UserError: the share is less than half a row.
    """
    rows = round(share * config.plan.rows_per_round)
    if not rows:
        raise UserError(
            f"--budgets: {budget_words(share)} of plan.rows_per_round, which is {config.plan.rows_per_round}, is no "
            "row: give a larger share"
        )
    return rows


def at_budget(of: Materials, share: float) -> Materials:
    """What strategies plan from where all trainings get this share of the tokens."""
    if share == WHOLE:
        return of
    plan = of.config.plan.model_copy(update={"rows_per_round": budget_rows(of.config, share)})
    return of._replace(config=of.config.model_copy(update={"plan": plan}), share=share)
