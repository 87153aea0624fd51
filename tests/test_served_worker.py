"""What is asked of a server and what is made of its answers, its failures and its end; against a stand-in."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from fake_vllm import ANSWER
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import make_model, make_tiny_model, make_tokenizer

from curriculum.errors import StudentError
from curriculum.records import Sampling
from curriculum.student_config import VllmConfig
from curriculum.training_config import TrainingConfig
from student import served_worker
from student.chat_format import encode_prompt, prompt_messages
from student.first_token import begun_answers
from student.loading import load_base
from student.lora import add_lora, save_adapter
from student.signals import top_entropy
from student.vllm_server import Model, start_server

FAKE = Path(__file__).with_name("fake_vllm.py")
PROMPTS = [
    {"id": f"{at:016x}", "messages": [m.model_dump() for m in prompt_messages("", (), f"{at} plus 7?")]}
    for at in range(30)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def job(base, tmp_path):
    servers = []

    def made(mode="ok", prompts=PROMPTS, finished=(), sampling=None, count=1, **fields):
        for at in range(count):
            model = Model(base, "base", "float32", 512, False, None)
            command = (sys.executable, str(FAKE), mode, "serve")
            servers.append(start_server(model, VllmConfig(), 1, tmp_path / f"{at}.log", lambda _: None, command))
        return {
            "base": str(base), "dtype": "float32", "threads": 1, "urls": [s.url for s in servers],
            "key": servers[0].key, "model": "base", "prompts": prompts, "finished": list(finished), "concurrency": 4,
            "sampling": (sampling or Sampling(max_new_tokens=9, seed=3)).model_dump(), "signals": False, **fields,
        }  # fmt: skip

    yield made
    for server in servers:
        server.stop()


def requests(log):
    return [line for line in map(json.loads, log.read_text().splitlines()) if "body" in line]


def test_every_sampling_field_is_given_and_the_prompt_is_our_tokens(job, tmp_path):
    list(served_worker.ask(job(prompts=PROMPTS[:1], sampling=Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9))))
    (request,) = requests(tmp_path / "0.log")
    body = request["body"]
    assert request["path"] == "/v1/completions" and request["key"].startswith("Bearer ")
    assert body.pop("prompt") == list(encode_prompt(make_tokenizer(), prompt_messages("", (), "0 plus 7?")))
    assert body == {
        "model": "base", "max_tokens": 9, "temperature": 0.7, "top_p": 0.9, "n": 1, "seed": 0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "logprobs": None, "echo": False, "stop": [], "stream": False,
        "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "min_tokens": 0,
        "ignore_eos": False, "stop_token_ids": [2], "include_stop_str_in_output": False, "skip_special_tokens": True,
        "spaces_between_special_tokens": True, "add_special_tokens": False, "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }  # fmt: skip


def test_only_what_is_missing_is_asked_for_and_seeds_do_not_depend_on_the_order(job, tmp_path):
    finished = [prompt["id"] for prompt in PROMPTS[:28]]
    answers = list(served_worker.ask(job(finished=finished)))
    assert sorted(a["id"] for a in answers) == [p["id"] for p in PROMPTS[28:]]
    text = make_tokenizer().decode(ANSWER[:-1])
    assert {(a["text"], a["finish_reason"], a["completion_tokens"], a["error"]) for a in answers} == {
        (text, "stop", 3, None)
    }
    assert sorted(r["body"]["seed"] for r in requests(tmp_path / "0.log")) == [28 + 3, 29 + 3]


def test_one_request_waits_for_each_that_is_answered_and_no_more(job, tmp_path):
    # The server answers none of them before the last of eight has come.
    asked = served_worker.ask(job("together:8", prompts=PROMPTS[:16], concurrency=4))
    assert next(asked)["finish_reason"] == "stop"
    assert len(requests(tmp_path / "0.log")) == 8, "the rest is asked for as answers come"
    assert len(list(asked)) == 15


def test_several_servers_share_the_work(job, tmp_path):
    assert len(list(served_worker.ask(job(count=2)))) == 30
    assert [len(requests(tmp_path / f"{at}.log")) for at in (0, 1)] == [15, 15]


def test_requests_that_fail_are_failures_of_ours_and_too_many_stop_the_run(job):
    answers = []
    with pytest.raises(StudentError, match=r"6 of 30 requests failed.*BadRequestError 400.*this request is broken"):
        answers.extend(served_worker.ask(job("breaks")))
    few = list(served_worker.ask(job("breaks", prompts=PROMPTS[:5])))
    assert {a["finish_reason"] for a in few} == {"error"} and len(few) == 5


def test_what_a_server_that_is_gone_did_not_answer_is_missing_not_wrong(job, monkeypatch):
    monkeypatch.setattr("openai._constants.INITIAL_RETRY_DELAY", 0.0)
    answers = []
    with pytest.raises(StudentError, match="stopped answering"):
        for answer in served_worker.ask(job("ends")):
            answers.append(answer)
    assert len(answers) <= 1
    assert all(a["finish_reason"] == "stop" for a in answers)


def begun(count):
    return [prompt | {"id": at, "target": f"Answer: {at}"} for at, prompt in enumerate(PROMPTS[:count])]


def test_first_tokens_are_asked_for_after_the_prefix_that_the_exact_entropy_has(job, tmp_path):
    prompts, tokenizer = begun(9), make_tokenizer()
    made = list(served_worker.first_tokens(job(prompts=prompts)))
    wanted = begun_answers(tokenizer, prompts)
    assert made == [{"id": p.id, "entropy": pytest.approx(1.5 * math.log(2))} for p in wanted]
    asked = [request["body"] for request in requests(tmp_path / "0.log")]
    assert sorted(body["prompt"] for body in asked) == sorted(list(p.input_ids) for p in wanted)
    assert {(body["max_tokens"], body["logprobs"], body["ignore_eos"]) for body in asked} == {(1, 20, True)}
    assert all(tokenizer.decode(p.input_ids).rstrip().endswith("Answer:") for p in wanted)


def test_a_first_token_that_cannot_be_had_stops_with_the_reason(job):
    with pytest.raises(StudentError, match=r"expected the likeliest tokens, got BadRequestError 400.*broken"):
        list(served_worker.first_tokens(job("breaks", prompts=begun(3))))


def test_a_merged_checkpoint_is_the_adapter(base, tmp_path):
    model = add_lora(make_model("llama", len(make_tokenizer())), TrainingConfig(), "tiny")
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_adapter(model, adapter)
    folder = tmp_path / "merged"
    job = {"base": str(base), "adapter": str(adapter), "folder": str(folder), "threads": 1, "dtype": "float32"}
    (event,) = served_worker.merge(job)
    assert list(event["files"]) == ["model.safetensors"] and len(event["files"]["model.safetensors"]) == 64
    merged, tokenizer = load_base(folder, "float32", 1)
    assert tokenizer.chat_template == make_tokenizer().chat_template
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(merged(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_entropy_of_the_likeliest_counts_the_rest_as_one():
    assert top_entropy([math.log(0.5), math.log(0.25)]) == pytest.approx(1.5 * math.log(2))
    assert top_entropy([0.0]) == 0.0


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=40), st.integers(1, 40))
def test_entropy_of_the_likeliest_is_never_above_the_true_one(weights, top):
    shares = sorted((w / sum(weights) for w in weights), reverse=True)
    true = -sum(p * math.log(p) for p in shares)
    rest = sum(shares[top:])
    got = top_entropy([math.log(p) for p in shares[:top]])
    assert true - rest * math.log(max(1, len(shares) - top)) - 1e-9 <= got <= true + 1e-9
