"""Whether the served weights are told from the base, an old adapter, another base, and themselves; recorded numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.errors import StudentError
from student.canary import choose_prompts, distance, judge, require_same

OWN = [[-1.0, -2.0], [-0.5, -0.25]]
BASE = [[-3.0, -2.5], [-0.5, -0.75]]
OLD = [[-1.2, -2.2], [-0.7, -0.45]]
NOISE = 3.4e-6
"""What vLLM's log-probabilities differed by from the trainer's on a CPU, in float32, nats a token."""


def noisy(vectors, by=NOISE):
    return [[value + by for value in vector] for vector in vectors]


@pytest.mark.parametrize(
    ("served", "others", "verdict"),
    [
        (noisy(OWN), {"base": BASE}, "same"),
        (noisy(OWN), {"base": BASE, "old": OLD}, "same"),
        (BASE, {"base": BASE}, "other"),  # wrong names of layers: it loads, and nothing of it is used
        (OLD, {"base": BASE, "old": OLD}, "other"),  # an old adapter under a new name
        (noisy(OWN, 5.0), {"base": BASE}, "other"),  # another base underneath
        (noisy(OWN), {"base": noisy(OWN, 1e-3)}, "undecidable"),  # an adapter too small to tell
        (noisy(OWN), {"base": BASE, "old": noisy(OWN, 1e-4)}, "undecidable"),
    ],
)
def test_verdicts(served, others, verdict):
    assert judge(OWN, served, others, "float32").verdict == verdict


def test_half_the_way_is_too_far():
    base = [[-2.0]]
    assert judge([[-1.0]], [[-1.4999]], {"base": base}, "float32").verdict == "same"
    assert judge([[-1.0]], [[-1.5]], {"base": base}, "float32").verdict == "other"


def test_a_coarse_number_format_needs_more_distance():
    others = {"base": noisy(OWN, 0.02)}
    assert judge(OWN, OWN, others, "float32").verdict == "same"
    assert judge(OWN, OWN, others, "bfloat16").verdict == "undecidable"


def test_the_prompts_that_separate_most_are_taken():
    own = [[0.0]] * 4
    base = [[-0.1], [-3.0], [-1.0], [-2.0]]
    old = [[-9.0], [-0.2], [-9.0], [-9.0]]
    assert choose_prompts(own, [base], 2) == [1, 3]
    assert choose_prompts(own, [base, old], 2) == [3, 2]


@given(st.lists(st.lists(st.floats(-20, 0), min_size=1, max_size=5), min_size=1, max_size=5), st.floats(-1, 1))
def test_distance_is_the_mean_shift(vectors, shift):
    assert distance(vectors, noisy(vectors, shift)) == pytest.approx(abs(shift), abs=1e-9)


def test_what_stops_a_round_says_what_was_found_and_what_to_do():
    require_same(judge(OWN, OWN, {"base": BASE}, "float32"), "a", "float32")
    with pytest.raises(
        StudentError, match=r"a: expected the server to answer with this adapter.*wrong names of layers"
    ):
        require_same(judge(OWN, BASE, {"base": BASE}, "float32"), "a", "float32")
    with pytest.raises(StudentError, match=r"undecidable.*Train more"):
        require_same(judge(OWN, OWN, {"base": noisy(OWN, 1e-6)}, "float32"), "a", "float32")
