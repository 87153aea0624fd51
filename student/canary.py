"""Whether a server's weights are those the trainer wrote: the same prompts, the log-probabilities of each token.

A server can load an adapter and answer without it, or with another one, and say that all is well. So what it computes
has to be nearer to the trainer's own than half the way to the base, and to the adapter that was served before.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from curriculum.errors import StudentError
from curriculum.serving_records import Canary

Vectors = Sequence[Sequence[float]]
"""Log-probabilities in nats: one list a prompt, one value a token."""

LEAST_DISTANCE = {"float32": 2e-3, "bfloat16": 4e-2, "float16": 1e-2}
"""Nats a token that two models have to be apart to be told apart: several times what an engine's roundings make."""
PROMPTS = 8
CANDIDATES = 24


def distance(left: Vectors, right: Vectors) -> float:
    """Mean absolute difference in nats over the tokens of all prompts."""
    return fmean(abs(a - b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True))


def choose_prompts(own: Vectors, others: Sequence[Vectors], most: int = PROMPTS) -> list[int]:
    """The prompts on which the trainer's model is furthest from the nearest of the others, the furthest first."""

    def separation(at: int) -> float:
        return min(distance([own[at]], [other[at]]) for other in others)

    return sorted(range(len(own)), key=lambda at: (-separation(at), at))[:most]


def judge(own: Vectors, served: Vectors, others: Mapping[str, Vectors], dtype: str) -> Canary:
    """Compares what a server computes with what the trainer computes, and with what it must not be.

    Args:
        own: of the trainer's adapter.
        served: of the server.
        others: of the base and of other adapters, by name.
        dtype: the coarser number format of the two.
    """
    apart = {name: distance(own, vectors) for name, vectors in others.items()}
    got = distance(own, served)
    nearest = min(apart.values())
    verdict = "undecidable" if nearest < LEAST_DISTANCE[dtype] else "same" if got < nearest / 2 else "other"
    return Canary.model_validate(
        {
            "verdict": verdict,
            "prompts": len(own),
            "tokens": sum(map(len, own)),
            "served": got,
            "others": apart,
        }
    )


def require_same(canary: Canary, adapter: str, dtype: str) -> None:
    """Stops a round whose answers might not be the adapter's.

    Raises:
        StudentError: they are not, or that cannot be told.
    """
    apart = ", ".join(f"{value:.2g} from {name}" for name, value in canary.others.items())
    facts = f"served {canary.served:.2g} nats a token from the trainer's own, which is {apart}"
    if canary.verdict == "undecidable":
        raise StudentError(
            f"{adapter}: expected an adapter that can be told from the others, got an undecidable one: {facts}; "
            f"with {dtype} at least {LEAST_DISTANCE[dtype]:g} is needed. Train more, or with a higher learning rate, "
            "or let transformers answer: student.engine"
        )
    if canary.verdict == "other":
        nearest = min(canary.others.values())
        raise StudentError(
            f"{adapter}: expected the server to answer with this adapter, got other weights: {facts}; less than "
            f"{nearest / 2:.2g} is needed. Another base, wrong names of layers in the adapter, or an old adapter "
            "may be served: look at the server's log, and start it anew"
        )
