"""A base kept in 4 bits: trained and answered for in the same weights, by the transformers engine alone."""

from pathlib import Path
from typing import Any

import pytest
from command import write_config
from samples import training_row
from tiny_model import make_tiny_model

from curriculum.config import load_config
from curriculum.errors import ConfigError, UserError
from curriculum.records import Message, Sampling
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student import loading
from student.embeddings import embed
from student.engine_worker import answer
from student.first_token import entropies
from student.interface import TrainingSettings
from student.local import LocalStudent
from student.ranking_worker import influence
from student.train_worker import train

HERE = Path(__file__).parents[1]


def test_it_goes_with_the_engine_that_has_the_same_weights(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    assert load_config(path, ["student.quantise=nf4", "student.engine=transformers"]).student.quantise == "nf4"
    for other in ("student.engine=vllm", "student.vllm.urls=[http://127.0.0.1:8000]"):
        with pytest.raises(ConfigError, match=r"goes with `student\.engine"):
            load_config(path, ["student.quantise=nf4", "student.engine=auto", other])


def test_every_job_is_told(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "tiny")
    config = StudentConfig(base=str(base), quantise="nf4")
    assert LocalStudent(config, TrainingConfig(), "").base_job()["quantise"] == "nf4"


@pytest.mark.parametrize("work", [loading.check, train, influence, answer, embed, entropies])
def test_every_job_keeps_the_base_in_4_bits_and_without_bitsandbytes_says_what_to_install(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    base = make_tiny_model(tmp_path / "tiny")
    job = {"base": str(base), "quantise": "nf4", "messages": [{"role": "user", "content": "x"}], "target": "y"}
    job |= {"dtype": "float32", "threads": 1, "adapter": None, "training": {}, "candidates": []}
    with pytest.raises(UserError, match=r"tutelage\[quantise\]"):
        list(work(job))


def test_an_adapter_learns_on_and_answers_beside_weights_of_4_bits(tmp_path: Path) -> None:
    bits = pytest.importorskip("bitsandbytes")
    base = make_tiny_model(tmp_path / "tiny", head_size=16)  # blocks of 64 numbers
    model, _ = loading.load_base(base, "float32", 1, quantise="nf4")
    kinds = {name.rpartition(".")[2]: type(part) for name, part in model.named_modules()}
    assert kinds["q_proj"] is kinds["down_proj"] is bits.nn.Linear4bit and kinds["lm_head"] is not bits.nn.Linear4bit
    messages = [Message(role="user", content="What is 12 plus 7?").model_dump()]
    own: dict[str, Any] = {"base": str(base), "dtype": "float32", "threads": 1, "quantise": "nf4"}
    training = TrainingConfig(rank=4, learning_rate=0.02, epochs=60, warmup_share=0.1)
    row = training_row(question="What is 12 plus 7?", target="Answer: 19")
    settings = TrainingSettings(training.learning_rate, training.epochs, 0, None)
    job = own | {
        "base_name": "tiny",
        "rows": [{"id": row.id, "messages": messages, "targets": [row.target], "weight": 1.0}],
        "training": training.model_dump(),
        "seed": settings.seed,
        "steps": None,
        "start": None,
        "folder": str(tmp_path / "adapter"),
    }
    *steps, done = train(job)
    assert done["losses"][-1] < 0.1 < done["losses"][0] and len(steps) == 60
    asked = own | {
        "prompts": [{"id": "p", "messages": messages}],
        "sampling": Sampling(max_new_tokens=12).model_dump(),
        "batch_size": 1,
        "finished": [],
    }
    (taught,) = answer(asked | {"adapter": str(tmp_path / "adapter")})
    (untaught,) = answer(asked | {"adapter": None})
    assert taught["text"] == "Answer: 19" != untaught["text"]


def test_the_papers_setting_is_a_config() -> None:
    config = load_config(HERE / "runs" / "configs" / "stat-math.yaml")
    assert (config.student.quantise, config.student.difficult, config.plan.allocation) == ("nf4", "prm", "failures")
    assert (config.plan.draws_per_failure, config.plan.rows_per_round, config.plan.uniform_floor) == (5, 9500, 0)
    training = config.training
    assert (training.rank, training.alpha, training.dropout, training.epochs) == (16, 32, 0.05, 3)
    bf16 = load_config(HERE / "runs" / "configs" / "stat-math.yaml", ["student.quantise=null", "student.engine=vllm"])
    assert bf16.student.dtype == "bfloat16"
