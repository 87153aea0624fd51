"""Whether the served weights are told from the base, an old adapter, another base, and themselves; recorded numbers."""

import pytest
from command import write_config
from hypothesis import given
from hypothesis import strategies as st

from agents.graph import run_plain
from agents.progress import ProgressPrinter
from agents.reporting import write_pages
from agents.session import create_run, open_loop
from curriculum.config import load_config
from curriculum.errors import StudentError
from curriculum.rundir import read_record
from curriculum.serving_records import Serving
from student.canary import choose_prompts, distance, judge, require_same
from student.fakes import FakeStudent

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


def test_the_report_says_which_weights_answered(tmp_path, monkeypatch):
    canary = judge(OWN, noisy(OWN), {"base": BASE}, "float32")
    serving = Serving(
        engine="vllm 0.32.0", adapter="base", how="merged", model="base", dtype="float32",
        files={"model.safetensors": "ab" * 32}, same_text=7, canary=canary,
    )  # fmt: skip
    monkeypatch.setattr(FakeStudent, "serving", lambda self: serving)
    path = write_config(tmp_path)
    config = load_config(path, ["rounds=1"])
    run = create_run(config, path, "run")
    with open_loop(run, config, ProgressPrinter()) as loop:
        run_plain(loop)
    assert read_record(run.stage_path("answers") / "base" / "gate" / "serving.json", Serving) == serving
    (note,) = [n for n in write_pages(run, config).notes if "answered for" in n]
    assert note == (
        "base was answered for by vllm 0.32.0 in float32: merged weights model.safetensors abababababab. Its "
        "log-probabilities are 3e-06 nats a token from the trainer's own, which are 0.75 from base."
    )
