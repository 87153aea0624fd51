"""What the forecast says leaves the machine, and to whom."""

from pathlib import Path

import pytest

from agents.forecast import leaving, print_forecast
from curriculum.config import load_config

CONFIGS = Path(__file__).parents[1] / "runs" / "configs"
AWAY = "https://api.openai.com/v1"


def test_the_quickstart_sends_nothing() -> None:
    assert leaving(load_config(CONFIGS / "quickstart.yaml")) == ["nothing"]


def test_every_role_of_a_teacher_says_what_it_is_shown() -> None:
    said = leaving(load_config(CONFIGS / "llm-teacher.yaml"))
    assert [line.rpartition(", to ")[2] for line in said] == [
        f"{AWAY} ({role})" for role in ("skills", "label", "diagnose", "write", "solve")
    ]
    assert not any("gold" in line for line in said)


def test_a_role_on_this_machine_and_labels_of_the_data_are_left_out() -> None:
    here = 'teacher.roles.diagnose={base_url: "http://127.0.0.1:8000/v1", model: local}'
    own = ["teacher.labels=data", "teacher.catalogue.source=data"]
    said = leaving(load_config(CONFIGS / "llm-teacher.yaml", [here, *own]))
    assert [line.rpartition(" (")[2] for line in said] == ["label)", "write)", "solve)"]
    assert said[0].startswith("new questions, to ")
    unwritten = [here, *own, "plan.write_share=0"]
    assert leaving(load_config(CONFIGS / "llm-teacher.yaml", unwritten)) == ["nothing"]


def test_what_planner_and_judges_are_shown_is_said() -> None:
    judged = ["data.grader=judge", "data.grader_rubric=r", "plan.by=llm"]
    elsewhere = "teacher.second_judge={model: n, base_url: https://other.example/v1, share: 0.1}"
    said = leaving(load_config(CONFIGS / "llm-teacher.yaml", [*judged, elsewhere]))
    assert [line.rpartition(", to ")[2] for line in said[-3:]] == [
        f"{AWAY} (plan)",
        f"{AWAY} (judge)",
        "https://other.example/v1 (judge)",
    ]
    assert "gold answers, of held-out items too" in said[-1] and not any("gold" in line for line in said[:-2])


def test_a_server_elsewhere_is_sent_the_students_questions() -> None:
    elsewhere = ["student.engine=vllm", "student.vllm.urls=[https://gpu.example:8000, http://127.0.0.1:8001]"]
    (said,) = leaving(load_config(CONFIGS / "quickstart.yaml", elsewhere))
    assert said.startswith("questions of probe, gate, final") and said.endswith("https://gpu.example:8000")


@pytest.mark.parametrize(("name", "known"), [("quickstart", True), ("gpu", False)])
def test_minutes_are_forecast_only_for_the_student_they_were_measured_with(
    name: str, known: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_forecast(load_config(CONFIGS / f"{name}.yaml"))
    shown = capsys.readouterr().out
    assert ("time on 2 CPU cores" in shown) == known
    assert ("unknown: measured with" in shown) == (not known)
