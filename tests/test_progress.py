"""What a person reads while a run works."""

import io

import pytest

from agents import progress
from agents.progress import ProgressPrinter
from student.interface import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_said_once_enough_is_done_to_tell(clock):
    stream = io.StringIO()
    show = ProgressPrinter(stream)
    for done, seconds in ((0, 0), (1, 30), (50, 30), (60, 1), (100, 60)):
        clock[0] += seconds
        show("answers", Progress(done, 100, ""))
    assert stream.getvalue().splitlines() == [
        "  answers: 1/100",
        "  answers: 50/100, 60 s left",
        "  answers: 100/100, 121 s",
    ]


def test_a_resumed_step_counts_its_own_time_only(clock):
    stream = io.StringIO()
    show = ProgressPrinter(stream)
    show("answers", Progress(50, 100, ""))
    clock[0] += 20
    show("answers", Progress(75, 100, "note"))
    assert stream.getvalue() == "  answers: 75/100, note, 20 s left\n"
