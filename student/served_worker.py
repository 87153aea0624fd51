"""The worker process of a student that a server answers for: merge, check which weights are served, ask.

Takes jobs and sends events, as `student.worker` does; the server is there already. An answer is sent as it ends, in
whatever order they end.
"""

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from openai import APIConnectionError, APIStatusError, AuthenticationError, InternalServerError, OpenAIError
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig  # noqa: F401

from curriculum.errors import StudentError, UserError
from curriculum.records import Message, Sampling
from student.base_model import file_sha256
from student.canary import CANDIDATES, choose_prompts, judge
from student.chat_format import encode_prompt, stop_ids
from student.first_token import begun_answers
from student.loading import load_base, native_dtype
from student.served_client import Client, Completion
from student.signals import top_entropy
from student.subprocess_job import Event, sample_ids, serve
from student.vllm_server import is_healthy

ASKED = 2
"""Requests under way for each answer that is computed at once: where an answer ends, the next one waits already."""
MOST_FAILED_SHARE = 0.1
FEWEST_FAILED = 5
"""So many requests may fail whatever their share."""


def describe(job: Event) -> Iterator[Event]:
    """What a server for `base` has to be told: `dtype`, `max_length` in tokens, `gpu`; and what one calls its model."""
    config = AutoConfig.from_pretrained(job["base"], trust_remote_code=False, local_files_only=True)
    gpu = torch.cuda.is_available()
    dtype = job["dtype"] if gpu else str(native_dtype(job["dtype"])).removeprefix("torch.")
    model = _client(job).base_model() if job["urls"] else None
    limit = getattr(config.get_text_config(), "max_position_embeddings", None) or job["max_length"]
    yield {"dtype": dtype, "max_length": min(limit, job["max_length"]), "gpu": gpu, "model": model}


def merge(job: Event) -> Iterator[Event]:
    """Writes `base` with `adapter` merged into it into `folder`, in `dtype`; sends the hashes of its weights.

    It is merged in float32, for bf16 would round most of a small adapter away.
    """
    base, folder = Path(job["base"]), Path(job["folder"])
    model, _ = load_base(base, "float32", job["threads"])
    peft_model: Any = PeftModel.from_pretrained(model, job["adapter"], local_files_only=True)
    merged = peft_model.merge_and_unload(safe_merge=True).to(getattr(torch, job["dtype"]))
    merged.save_pretrained(folder, safe_serialization=True)
    for file in base.iterdir():
        if file.is_file() and ".safetensors" not in file.name and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)
    yield {"files": {f.name: file_sha256(f) for f in sorted(folder.glob("*.safetensors"))}}


def load_adapter(job: Event) -> Iterator[Event]:
    """Has the servers load the adapter in `folder` under the name `model`."""
    _client(job).load_adapter(job["model"], job["folder"])
    yield {"loaded": job["model"]}


def check_served(job: Event) -> Iterator[Event]:
    """Compares text and weights of the server with ours, on real prompts.

    Args:
        job: `base`, `dtype`, `threads`, `urls`, `key`, `model`, `prompts`, `adapter` (none: text only), `others`
            (folders by name), `served_dtype`.

    Raises:
        StudentError: server and trainer make different tokens of the same messages.
    """
    tokenizer = _tokenizer(job)
    client = _client(job)
    messages = [[Message.model_validate(m) for m in prompt["messages"]] for prompt in job["prompts"][:CANDIDATES]]
    special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    prompts = [encode_prompt(tokenizer, turns) for turns in messages]
    # Texts of control tokens are ordinary text to us and control tokens to a server: we send token ids.
    plain = [at for at, turns in enumerate(messages) if not any(s in m.content for m in turns for s in special)]
    for at in plain:
        theirs = client.tokenize(messages[at])
        if theirs != prompts[at]:
            raise StudentError(
                f"{job['model']}: expected the server to make the same tokens of a prompt as the trainer, got "
                f"{theirs[:40]} instead of {prompts[at][:40]}: it serves another tokenizer or chat template. Serve the "
                "folder of student.base, with its own template"
            )
    event: Event = {"same_text": len(plain), "canary": None}
    if job["adapter"]:
        event["canary"] = _canary(job, client, prompts)
    yield event


def _canary(job: Event, client: Client, prompts: list[tuple[int, ...]]) -> Event:
    base, _ = load_base(Path(job["base"]), job["dtype"], job["threads"])
    model: Any = PeftModel.from_pretrained(base, job["adapter"], local_files_only=True)
    model.train(False)
    own = _log_probabilities(model, prompts)
    with model.disable_adapter():
        others = {"base": _log_probabilities(model, prompts)}
    for name, folder in job["others"].items():
        model.load_adapter(folder, adapter_name=name.replace(".", "_"), local_files_only=True)
        model.set_adapter(name.replace(".", "_"))
        others[name] = _log_probabilities(model, prompts)
    chosen = choose_prompts(own, list(others.values()))
    served = [client.prompt_log_probabilities(prompts[at]) for at in chosen]
    picked = {name: [vectors[at] for at in chosen] for name, vectors in others.items()}
    return judge([own[at] for at in chosen], served, picked, job["served_dtype"]).model_dump()


@torch.inference_mode()
def _log_probabilities(model: Any, prompts: list[tuple[int, ...]]) -> list[list[float]]:
    vectors = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        vectors.append(logits.gather(-1, ids[0, 1:, None])[:, 0].tolist())
    return vectors


def ask(job: Event) -> Iterator[Event]:
    """Asks the server for every answer whose id is not in `finished`.

    Args:
        job: `base`, `urls`, `key`, `model`, `prompts`, `sampling`, `finished`, `concurrency`, `signals`. The samples
            of a prompt come from one request, so their draws are the same when some are finished.

    Raises:
        StudentError: the server is gone, or too many requests failed. What failed with a server that is gone is not
            sent: it is missing, not wrong.
    """
    tokenizer = _tokenizer(job)
    stops = stop_tokens(Path(job["base"]), tokenizer)
    sampling = Sampling.model_validate(job["sampling"])
    client = _client(job)
    finished = set(job["finished"])
    missing = [prompt for prompt in job["prompts"] if not finished.issuperset(sample_ids(prompt))]
    failed = 0
    running: dict[Future[list[Completion]], tuple[list[str], int]] = {}

    def submit(prompt: Event) -> None:
        ids = encode_prompt(tokenizer, [Message.model_validate(m) for m in prompt["messages"]])
        # A seed for each answer, so that draws do not depend on the order of the answers.
        seed = int(prompt["id"], 16) + sampling.seed
        answers = sample_ids(prompt)
        future = pool.submit(
            client.complete, ids, sampling, stops, seed=seed, samples=len(answers), signals=job["signals"]
        )
        running[future] = answers, len(ids)

    at_once = ASKED * job["concurrency"]
    pool = ThreadPoolExecutor(max_workers=at_once)
    try:
        waiting = iter(missing)
        while True:
            for prompt in islice(waiting, at_once - len(running)):
                submit(prompt)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                ids, length = running.pop(future)
                events = _events(future, job, len(ids), stops, tokenizer)
                failed += events[0]["finish_reason"] == "error"
                if failed > max(FEWEST_FAILED, MOST_FAILED_SHARE * len(job["prompts"])):
                    raise StudentError(f"{failed} of {len(missing)} requests failed, the last: {events[0]['error']}")
                for id_, event in zip(ids, events, strict=True):
                    if id_ not in finished:
                        yield {"id": id_, "prompt_tokens": length} | event
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def first_tokens(job: Event) -> Iterator[Event]:
    """Asks the server how unsure it is of the first token of each answer: `id`, and `entropy` in nats.

    The prompt is that of `first_token.entropies`; what is left out is all but the 20 likeliest tokens.

    Args:
        job: `base`, `urls`, `key`, `model`, `prompts` (`id`, `messages`, `target`), `concurrency`.

    Raises:
        StudentError: a request failed, after retries: each entropy is needed.
    """
    prompts = begun_answers(_tokenizer(job), job["prompts"])
    client = _client(job)
    with ThreadPoolExecutor(max_workers=job["concurrency"]) as pool:
        futures = [pool.submit(client.next_log_probabilities, prompt.input_ids) for prompt in prompts]
        try:
            for prompt, future in zip(prompts, futures, strict=True):
                yield {"id": prompt.id, "entropy": top_entropy(future.result())}
        except AuthenticationError:
            raise _unknown_key(job) from None
        except OpenAIError as error:
            raise StudentError(f"{job['model']}: expected the likeliest tokens, got {_reason(error)}") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _unknown_key(job: Event) -> UserError:
    return UserError(f"{job['urls']}: expected a key the server knows in VLLM_API_KEY, got another or none")


def _events(
    future: "Future[list[Completion]]", job: Event, count: int, stops: list[int], tokenizer: Any
) -> list[Event]:
    """What is sent of the answers to one prompt; the same failure for each when the request failed."""
    try:
        completions = future.result()
    except AuthenticationError:
        raise _unknown_key(job) from None
    except OpenAIError as error:
        if isinstance(error, APIConnectionError | InternalServerError):
            gone = [url for url in job["urls"] if not is_healthy(url)]
            if gone:
                raise StudentError(f"the vLLM server at {gone[0]} stopped answering ({_reason(error)})") from None
        logging.exception("a request failed")
        return [{"text": "", "finish_reason": "error", "completion_tokens": 0, "error": _reason(error)}] * count
    return [_event(completion, stops, tokenizer) for completion in completions]


def _event(completion: Completion, stops: list[int], tokenizer: Any) -> Event:
    tokens = list(completion.tokens)
    text = tokens[:-1] if completion.stopped and tokens and tokens[-1] in stops else tokens
    return {
        "text": tokenizer.decode(text, skip_special_tokens=True),
        "finish_reason": "stop" if completion.stopped else "length",
        "completion_tokens": len(tokens),
        "error": None,
        "entropy": completion.entropy,
    }


def _reason(error: OpenAIError) -> str:
    status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
    return f"{type(error).__name__}{status}: {' '.join(str(error).split())[:500]}"


def _tokenizer(job: Event) -> Any:
    return AutoTokenizer.from_pretrained(job["base"], trust_remote_code=False, local_files_only=True)


def stop_tokens(base: Path, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, as `engine_worker` takes them from the loaded model."""
    try:
        own = GenerationConfig.from_pretrained(base, local_files_only=True).eos_token_id
    except OSError:  # the model has none
        own = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True).eos_token_id
    return stop_ids(tokenizer, own)


def _client(job: Event) -> Client:
    return Client(job["urls"], job["key"], job["model"])


def work(job: Event) -> Iterator[Event]:
    """Does a job: `do` says which."""
    return {f.__name__: f for f in (ask, check_served, describe, first_tokens, load_adapter, merge)}[job["do"]](job)


if __name__ == "__main__":
    serve(work)
