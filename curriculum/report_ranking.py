"""What reports say of the ranking of pool rows inside a skill."""

from curriculum.plan_config import PreferenceWeight, Ranking
from curriculum.ranking import NAMES, RankingReport
from curriculum.report import RoundReport

BY: dict[Ranking, str] = {
    "prism": "PRISM: how far a step on a row would move the student from its own wrong answers to the right ones",
    "less": "LESS: how alike a row's Adam step is to the gradients of the right answers to what failed",
    "embed_sel": "embeddings: how near a row's question is to a failed one, in the student's own hidden states",
}
WEIGHTS: dict[PreferenceWeight, str] = {
    "pi": "each failure counts by how far the right answer is preferred already (π)",
    "1-pi": "each failure counts by how far the wrong answer is still preferred (1 − π)",
    "uniform": "all failures count the same",
}


def ranking_words(round_: RoundReport) -> str:
    """What ranked the pool rows of a round, by which failures, and where the drawn ones stand; empty if nothing did."""
    made: RankingReport | None = round_.ranking
    if made is None:
        return ""
    if made.not_ranked is not None:
        return (
            f"Within each skill, the {made.rows} pool rows were drawn at random: {NAMES[made.method]} had nothing to "
            f"compare them with, for {made.not_ranked}, by {made.adapter}."
        )
    weight = f" ({WEIGHTS[made.weight]})" if made.weight else ""
    left_out = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items())
    said = (
        f"Within each skill, pool rows were taken by {BY[made.method]}{weight}. Compared with {made.failures} failed "
        f"probe answers of {made.adapter}{f'; left out: {left_out}' if left_out else ''}. {made.scored} pool items "
        f"scored{f', {made.too_long} too long' if made.too_long else ''}."
    )
    if made.standing is not None:
        said += (
            f" The {made.rows} drawn rows stand at {made.standing:.2f} among their skill's items on average (1 is the "
            "best, 0.50 chance). A ranking is a guess about what helps: only a bench compares it with random rows."
        )
    return said
