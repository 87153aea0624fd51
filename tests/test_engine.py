"""Answers in a worker process: what comes out, what an interruption changes (nothing), and how a worker ends."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from tiny_model import make_model, make_tiny_model, make_tokenizer
from transformers import Lfm2Config

from curriculum.errors import OutOfMemory, StudentError, UserError
from curriculum.records import Message, Sampling
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student import decoding, engine_worker
from student.chat_format import encode_prompt, prompt_messages
from student.decoding import choose_tokens, decode, read_prefix
from student.engine_worker import EncodedPrompt, partition
from student.interface import AdapterFiles, Prompt
from student.key_values import use_grouped_attention
from student.local import LocalStudent
from student.lora import add_lora, save_adapter
from student.subprocess_job import is_out_of_memory, run_worker, worker_environment

BASE = AdapterFiles("base", None)
GREEDY = Sampling(max_new_tokens=12)
SAMPLED = Sampling(max_new_tokens=12, temperature=1.5, top_p=0.9, seed=3)
QUESTIONS = [f"{'What is ' * (at % 4)}{at} plus 7?" for at in range(11)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "a"
    folder.mkdir()
    torch.manual_seed(0)
    model = add_lora(make_model("llama", len(make_tokenizer())), TrainingConfig(), "tiny")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(model, folder)
    return folder


def job(base, *, dtype="float32", adapter=None, sampling=GREEDY, finished=(), questions=QUESTIONS, batch_size=4):
    return {
        "base": str(base),
        "adapter": adapter and str(adapter),
        "dtype": dtype,
        "threads": 1,
        "prompts": [
            {"id": f"id{at}", "messages": [m.model_dump() for m in prompt_messages("", (), question)]}
            for at, question in enumerate(questions)
        ],
        "sampling": sampling.model_dump(),
        "batch_size": batch_size,
        "finished": list(finished),
    }


@pytest.fixture
def bf16_everywhere(monkeypatch):
    """Computes in bf16 also on a CPU that has no instructions for it."""
    monkeypatch.setattr("student.loading.native_dtype", lambda name, device="cpu": getattr(torch, name))


@pytest.mark.usefixtures("bf16_everywhere")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_resumed_evaluation_gives_the_same_answers(base, adapter, dtype, sampling):
    whole = list(engine_worker.answer(job(base, dtype=dtype, adapter=adapter, sampling=sampling)))
    assert sorted(answer["id"] for answer in whole) == sorted(f"id{at}" for at in range(11))
    finished = {whole[0]["id"], whole[5]["id"], whole[6]["id"], *(answer["id"] for answer in whole[8:])}
    rest = engine_worker.answer(job(base, dtype=dtype, adapter=adapter, sampling=sampling, finished=finished))
    assert list(rest) == [answer for answer in whole if answer["id"] not in finished]


def test_batches_come_longest_first_and_do_not_depend_on_the_order_of_the_prompts():
    prompts = [EncodedPrompt(f"id{at}", tuple(range(length))) for at, length in enumerate([3, 9, 3, 5, 9])]
    batches = partition(prompts, 2)
    assert [[p.id for p in batch] for batch in batches] == [["id1", "id4"], ["id3", "id0"], ["id2"]]
    assert partition(prompts[::-1], 2) == batches


def library_greedy(model, prompt, stops, max_new_tokens):
    ids = torch.tensor([prompt])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False,
        eos_token_id=stops, pad_token_id=2,
    )  # fmt: skip
    return made[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_greedy_answers_are_those_of_the_library_though_rows_leave_the_batch(family, monkeypatch):
    tokenizer = make_tokenizer()
    model = make_model(family, len(tokenizer)).double().eval()
    prompts = [encode_prompt(tokenizer, prompt_messages("", (), question)) for question in QUESTIONS]
    alone = [library_greedy(model, prompt, [2], 12) for prompt in prompts]
    # A token of the first answer's middle ends answers at different lengths, so that rows leave the batch.
    stops = [2, alone[0][4]]
    prompts.sort(key=len, reverse=True)
    expected = [library_greedy(model, prompt, stops, 12) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 1
    prefix = read_prefix(model, prompts)
    assert prefix.length > 0
    use_grouped_attention(model)
    monkeypatch.setitem(decoding.READ_TOKENS, "cpu", 40)
    made = dict(decode(model, prefix, prompts, stops, 2, GREEDY, torch.Generator()))
    assert [made[row] for row in range(len(prompts))] == expected


def test_prompts_that_share_no_beginning_are_read_too():
    model = make_model("llama", len(make_tokenizer())).double().eval()
    use_grouped_attention(model)
    prompts = [(5, 6, 7), (8, 9), (10,)]
    prefix = read_prefix(model, prompts)
    assert prefix.length == 0
    made = dict(decode(model, prefix, prompts, [2], 2, GREEDY, torch.Generator()))
    assert [made[row] for row in range(3)] == [library_greedy(model, list(prompt), [2], 12) for prompt in prompts]


def test_a_model_that_keeps_more_than_keys_and_values_is_refused():
    config = Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"])
    with pytest.raises(UserError, match="expected a model that attends in every layer"):
        use_grouped_attention(SimpleNamespace(config=config))


def test_an_answer_tells_whether_it_ended_by_itself_and_what_it_cost(base, monkeypatch):
    (endless,) = engine_worker.answer(job(base, questions=["x"]))
    assert (endless["finish_reason"], endless["completion_tokens"]) == ("length", 12)
    assert endless["prompt_tokens"] == len(encode_prompt(make_tokenizer(), prompt_messages("", (), "x")))
    first = make_tokenizer()(endless["text"], add_special_tokens=False).input_ids[0]
    monkeypatch.setattr(engine_worker, "stop_ids", lambda *_: [first])
    (stopped,) = engine_worker.answer(job(base, questions=["x"]))
    assert stopped == endless | {"finish_reason": "stop", "completion_tokens": 1, "text": ""}


def test_the_adapter_changes_the_answers(base, adapter):
    plain = [answer["text"] for answer in engine_worker.answer(job(base))]
    taught = [answer["text"] for answer in engine_worker.answer(job(base, adapter=adapter))]
    assert plain != taught


def test_a_batch_that_breaks_fails_alone_and_says_why(base, monkeypatch):
    def breaks_on_second_batch(model, prefix, prompts, *rest):
        if len(prompts[0]) == lengths[4]:
            raise ValueError("broken")
        return decode(model, prefix, prompts, *rest)

    whole = list(engine_worker.answer(job(base)))
    lengths = [answer["prompt_tokens"] for answer in whole]
    assert lengths[4] not in (lengths[0], lengths[8])
    monkeypatch.setattr(engine_worker, "decode", breaks_on_second_batch)
    answers = list(engine_worker.answer(job(base)))
    assert [answer["finish_reason"] for answer in answers[4:8]] == ["error"] * 4
    assert {answer["error"] for answer in answers[4:8]} == {"ValueError('broken')"}
    assert answers[:4] + answers[8:] == whole[:4] + whole[8:]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (RuntimeError("size mismatch"), False),
    ],
)
def test_memory_that_runs_out_is_told_from_other_faults(error, is_memory):
    assert is_out_of_memory(error) is is_memory


def test_memory_that_runs_out_in_a_batch_is_no_failed_answer(base, monkeypatch):
    def no_memory(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(engine_worker, "decode", no_memory)
    with pytest.raises(RuntimeError, match="can't allocate"):
        list(engine_worker.answer(job(base)))


def test_greedy_takes_the_likeliest_and_a_tiny_nucleus_does_too():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    narrow = Sampling(max_new_tokens=1, temperature=1.0, top_p=0.01)
    assert choose_tokens(logits, GREEDY, torch.Generator()).tolist() == [1, 0]
    assert choose_tokens(logits, narrow, torch.Generator()).tolist() == [1, 0]


def test_sampling_keeps_to_the_nucleus_and_to_the_probabilities():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20_000, 1)
    sampling = Sampling(max_new_tokens=1, temperature=1.0, top_p=0.75)
    drawn = choose_tokens(logits, sampling, torch.Generator().manual_seed(0)).bincount(minlength=4) / 20_000
    # The two likeliest have 0.8 of the mass and are the smallest set with at least 0.75.
    torch.testing.assert_close(drawn, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.02, rtol=0)


@pytest.mark.real
def test_the_student_answers_in_a_process_and_only_what_is_missing(base, tmp_path):
    student = LocalStudent(StudentConfig(base=str(base), dtype="float32", batch_size=2), TrainingConfig(), "sys")
    prompts = [Prompt(f"e{at}", "plain", (Message(role="user", content=q),)) for at, q in enumerate(QUESTIONS[:4])]
    whole = list(student.answer(prompts, BASE, GREEDY, set(), tmp_path / "log"))
    assert {answer.example_id for answer in whole} == {"e0", "e1", "e2", "e3"}
    assert {(answer.adapter, answer.arm, answer.sampling) for answer in whole} == {("base", "plain", GREEDY)}
    finished = {answer.id for answer in whole[:3]}
    assert list(student.answer(prompts, BASE, GREEDY, finished, tmp_path / "log")) == whole[3:]
    # With nothing to do, not even the model is looked for.
    missing = LocalStudent(StudentConfig(base="/no/such/folder"), TrainingConfig(), "sys")
    everything = {answer.id for answer in whole}
    assert list(missing.answer(prompts, BASE, GREEDY, everything, tmp_path / "log")) == []


def test_the_parent_does_not_import_torch():
    code = "import sys, student.local; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    environment = worker_environment(1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


WORKER = """
import os, sys, time
from curriculum.errors import UserError
from student.subprocess_job import serve

def work(job):
    print("a library prints this to stdout")
    yield {"job": job, "environment": dict(os.environ)}
    if job["then"] == "user error":
        raise UserError("fix this")
    if job["then"] == "die":
        sys.stderr.write("the last words\\n")
        sys.stderr.flush()
        os.kill(os.getpid(), 9)
    if job["then"] == "abort":
        sys.stderr.write("memory allocation of 9 bytes failed\\n")
        sys.stderr.flush()
        os.abort()
    if job["then"] == "no memory":
        bytearray(2**62)
    if job["then"] == "other":
        raise KeyError("x")
    if job["then"] == "hang":
        from filelock import FileLock
        with FileLock(job["lock"]):
            yield {"locked": True}
            time.sleep(600)

serve(work)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "a_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda **job: run_worker("a_worker", job, threads=1, log=tmp_path / "log")


def test_events_come_one_by_one_and_prints_go_to_the_log(worker, tmp_path):
    events = list(worker(then="end", text="é\n\ud800"))
    assert [event["job"]["text"] for event in events] == ["é\n\ud800"]
    assert "a library prints this" in (tmp_path / "log").read_text()


def test_a_worker_sees_no_secret(worker, monkeypatch):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "my_secret", "DB_PASSWORD"):
        monkeypatch.setenv(name, "hush")
    (event,) = worker(then="end")
    assert "hush" not in event["environment"].values()
    assert event["environment"]["HF_HUB_OFFLINE"] == "1"
    assert event["environment"]["OMP_NUM_THREADS"] == "1"


def test_an_error_for_the_user_arrives_as_itself(worker):
    with pytest.raises(UserError, match="fix this"):
        list(worker(then="user error"))


def test_a_worker_that_dies_shows_the_end_of_its_log(worker):
    with pytest.raises(OutOfMemory, match=r"(?s)killed by SIGKILL \(most often: memory ran out\).*the last words"):
        list(worker(then="die"))


@pytest.mark.parametrize(
    ("then", "error", "message"),
    [
        ("abort", OutOfMemory, "killed by SIGABRT (most often: memory ran out)"),
        ("no memory", OutOfMemory, "MemoryError"),
        ("other", StudentError, "ended with status 1. The end of"),
    ],
)
def test_how_a_job_ended_says_whether_memory_ran_out(worker, then, error, message):
    with pytest.raises(StudentError) as caught:
        list(worker(then=then))
    assert type(caught.value) is error and message in str(caught.value)


def test_closing_the_events_kills_the_worker(worker, tmp_path):
    lock = tmp_path / "lock"
    events = worker(then="hang", lock=str(lock))
    assert "locked" in [next(events), next(events)][1]
    events.close()
    with FileLock(lock, timeout=0):
        assert lock.exists()


def test_killing_the_parent_leaves_no_worker(worker, tmp_path):
    lock = tmp_path / "lock"
    parent = f"""
from pathlib import Path
from student.subprocess_job import run_worker
job = {{"then": "hang", "lock": {str(lock)!r}}}
for event in run_worker("a_worker", job, threads=1, log=Path({str(tmp_path / "log")!r})):
    print("locked" in event, flush=True)
"""
    root = Path(engine_worker.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as process:
        assert [process.stdout.readline(), process.stdout.readline()] == [b"False\n", b"True\n"]
        process.send_signal(signal.SIGKILL)
    with FileLock(lock, timeout=30):
        assert lock.exists()


@pytest.mark.real
def test_the_real_student_answers_like_a_language_model(tmp_path):
    student = LocalStudent(StudentConfig(), TrainingConfig(), "")
    question = Message(role="user", content="What is the capital of France? Answer in one word.")
    (answer,) = student.answer(
        [Prompt("e", "plain", (question,))], BASE, Sampling(max_new_tokens=16), set(), tmp_path / "log"
    )
    assert "Paris" in answer.text
    assert json.loads(answer.model_dump_json())["finish_reason"] == "stop"
