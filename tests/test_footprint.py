"""The forecast says what a run starts and what memory it takes, and warns of what does not fit."""

import os
from pathlib import Path

import pytest
from test_config import MINIMAL, write
from tiny_model import make_tiny_model

from agents.footprint import base_sizes, commands, footprint, gpu_bytes, rows, warnings
from agents.forecast import print_forecast
from curriculum.config import load_config
from student.memory_estimate import adapter_count, less_memory, scoring_memory

GPU = Path(__file__).parents[1] / "runs/configs/gpu.yaml"


@pytest.fixture(autouse=True)
def no_gpu(tmp_path, monkeypatch):
    """A machine without a GPU, whose Hub cache and model cache are empty."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def nvidia_smi(tmp_path, script):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_base_on_this_machine_is_known_by_its_config_and_another_by_the_users_figures(tmp_path):
    base = make_tiny_model(tmp_path / "tiny")
    path = write(tmp_path, MINIMAL)
    assert base_sizes(load_config(path, [f"student.base={base}"])).vocab_size < 400
    given = load_config(GPU, [f"student.base={base}"])
    assert base_sizes(given).vocab_size < 400, "the model's own figures hold"
    assert base_sizes(load_config(GPU)).vocab_size == 151_936


def test_an_unknown_base_is_said_to_be_unknown(tmp_path):
    config = load_config(GPU, ["forecast.base_sizes=null"])
    made = footprint(config)
    assert made.training is None and made.answering is None
    assert "unknown: Qwen/Qwen2.5-1.5B-Instruct is not here" in rows(config, made)[0][1]
    assert warnings(config, made) == []


def test_the_gpu_config_fits_and_more_is_warned_of():
    config = load_config(GPU)
    assert warnings(config, footprint(config)) == []
    wide = load_config(GPU, ["training.batch_tokens=30000"])
    (warning,) = warnings(wide, footprint(wide))
    assert "Lower training.batch_tokens" in warning
    assert "24 GiB" in warning


def test_visible_gpus_are_asked_for_their_memory_and_the_config_outranks_them(tmp_path):
    unset = ["forecast.gpu_memory_gib=null", "training.processes=3"]
    assert footprint(load_config(GPU, unset)).gpus is None
    nvidia_smi(tmp_path, "echo 81559; echo 40960")
    made = footprint(load_config(GPU, unset))
    assert gpu_bytes() == [81559 * 2**20, 40960 * 2**20]
    assert made.training_limit == 40960 * 2**20
    assert footprint(load_config(GPU)).training_limit == 24 * 2**30
    assert any("GPUs are 2" in warning for warning in warnings(load_config(GPU, unset), made))


@pytest.mark.parametrize("script", ["exit 9", "echo N/A", "echo no devices were found"])
def test_a_gpu_tool_that_tells_nothing_is_no_gpu(tmp_path, script):
    nvidia_smi(tmp_path, script)
    assert gpu_bytes() == []


def test_several_processes_share_a_batch_and_on_a_cpu_the_memory(tmp_path):
    one, four = (footprint(load_config(GPU, [f"training.processes={n}"])) for n in (1, 4))
    assert four.training.activations < one.training.activations
    assert four.training.weights == one.training.weights
    on_cpu = [footprint(load_config(GPU, ["forecast.gpu_memory_gib=null", f"training.processes={n}"])) for n in (1, 4)]
    assert on_cpu[1].training_limit == on_cpu[0].training_limit // 4


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["serve", "ask the server", "train"]),
        (["student.engine=transformers"], ["answer and train"]),
        (["student.vllm.urls=['http://127.0.0.1:8000']"], ["ask the server", "train"]),
        (["training.processes=4"], ["serve", "ask the server", "encode", "train"]),
        (["student.base=smollm2-135m"], ["convert the base, once", "serve", "ask the server", "train"]),
        (["data.grader=math"], ["serve", "ask the server", "train", "grade (math)"]),
        (["trackers=[mlflow]"], ["serve", "ask the server", "train", "tell mlflow"]),
        (["student.engine=fake"], []),
    ],
)
def test_every_command_is_told_and_no_secret(monkeypatch, overrides, expected):
    monkeypatch.setitem(os.environ, "OPENAI_API_KEY", "hush")
    found = commands(load_config(GPU, overrides))
    assert [what for what, _ in found] == expected
    assert all(command.startswith("python -") and "hush" not in command for _, command in found)
    trains = dict(found).get("train", "")
    several = "training.processes=4" in overrides
    assert ("torch.distributed.run --nnodes 1 --nproc-per-node 4" in trains) == several


def test_the_server_is_started_as_configured():
    overrides = ["student.vllm.tensor_parallel=2", "student.vllm.data_parallel=3", "training.rank=20"]
    config = load_config(GPU, overrides)
    serve = dict(commands(config))["serve"]
    for words in ("--tensor-parallel-size 2", "--data-parallel-size 3", "--max-lora-rank 32", "--port PORT"):
        assert words in serve
    assert "--host 127.0.0.1" in serve
    sleeping = load_config(GPU, [*overrides, "student.vllm.sleep=true"])
    assert "--uds SOCKET --enable-sleep-mode" in dict(commands(sleeping))["serve"]
    one, two = footprint(load_config(GPU)).answering, footprint(config).answering
    assert two.weights == (one.weights + 1) // 2
    assert two.adapter == 2 * one.adapter


MATH = GPU.with_name("stat-math.yaml")


def test_transformers_answers_where_it_trains(tmp_path):
    made = footprint(load_config(MATH))
    assert made.answering_limit == made.training_limit == 80 * 2**30
    assert warnings(load_config(MATH), made) == []
    on_cpu = footprint(load_config(MATH, ["forecast.gpu_memory_gib=null", "student.quantise=null"]))
    assert on_cpu.answering.weights == 2 * made.answering.weights, "a CPU may compute in float32"


def test_a_reward_model_that_is_loaded_here_is_told_by_its_own_sizes(tmp_path):
    base = make_tiny_model(tmp_path / "tiny")
    unknown = dict(rows(load_config(MATH), footprint(load_config(MATH))))["memory to score steps"]
    assert unknown.startswith("unknown: RLHFlow/")
    here = load_config(MATH, [f"student.reward.model={base}"])
    assert "of weights" in dict(rows(here, footprint(here)))["memory to score steps"]
    served = load_config(MATH, ["student.reward.base_url='http://127.0.0.1:1/v1'"])
    assert "memory to score steps" not in dict(rows(served, footprint(served)))


def test_the_paper_s_setting_is_forecast_without_the_hub_and_its_figures_are_called_theirs(capsys):
    print_forecast(load_config(MATH))
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "published by others, not measured" in said and "STAT-Sel 51.5" in said
    assert "1,000 answers, their steps scored by" in said and "5.3 points" in said
    assert "the data are on the Hub" in said
    print_forecast(load_config(GPU))
    assert "published" not in capsys.readouterr().out


def test_a_ranking_by_less_holds_a_direction_of_each_skill(tmp_path):
    quickstart = GPU.with_name("quickstart.yaml")
    base = make_tiny_model(tmp_path / "tiny")
    config = load_config(quickstart, ["plan.rank=less", f"student.base={base}"])
    sizes, skills = base_sizes(config), len(config.data.tasks)
    one, more = (less_memory(sizes, config.training, 4, n, None) for n in (skills, skills + 1))
    assert more - one == 4 * adapter_count(sizes, config.training.rank)
    assert less_memory(sizes, config.training, 4, 9, 10) - less_memory(sizes, config.training, 4, 8, 10) == 4 * 10
    assert f"with {skills} skills" in dict(rows(config, footprint(config)))["memory to rank (LESS)"]
    large = load_config(quickstart, ["plan.rank=prism", "training.scoring_batch_tokens=9000", f"student.base={base}"])
    assert "9,000 tokens" in dict(rows(large, footprint(large)))["memory to score rows"]
    assert scoring_memory(sizes, large.training, 4) > scoring_memory(sizes, config.training, 4)
    even = load_config(quickstart, ["training.scoring_batch_tokens=9000", f"student.base={base}"])
    assert "memory to score rows" not in dict(rows(even, footprint(even))), "nothing is scored"
    assert "memory to rank (LESS)" not in dict(rows(load_config(quickstart), footprint(load_config(quickstart))))
