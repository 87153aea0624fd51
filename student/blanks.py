"""Answers that are still to be given: what an answer's id is made of, before there is one."""

from collections.abc import Mapping, Sequence

from curriculum.records import Sampling, StudentAnswer
from student.interface import AdapterFiles, Prompt
from student.subprocess_job import Event

Blanks = Mapping[str, tuple[StudentAnswer, Prompt]]
"""What is to be answered, by the id of the answer."""


def blank_answers(
    prompts: Sequence[Prompt], adapter: AdapterFiles, sampling: Sampling, samples: int | None = None
) -> Blanks:
    """The answers to be given, without their texts; the samples of a prompt follow each other."""
    blanks = ((_blank(prompt, adapter, sampling, at), prompt) for prompt in prompts for at in range(samples or 1))
    return {blank.id: (blank, prompt) for blank, prompt in blanks}


def prompt_events(blanks: Blanks) -> list[Event]:
    """The prompts as a worker takes them, each with the ids of the answers it is to get: `id`, and `more` of them."""
    events: list[Event] = []
    for id_, (blank, prompt) in blanks.items():
        if blank.sample_index:
            events[-1].setdefault("more", []).append(id_)
        else:
            events.append({"id": id_, "messages": [m.model_dump() for m in prompt.messages]})
    return events


def _blank(prompt: Prompt, adapter: AdapterFiles, sampling: Sampling, sample: int) -> StudentAnswer:
    """The answer to a prompt before there is one: what its id is made of."""
    return StudentAnswer.model_validate(
        {
            "example_id": prompt.example_id,
            "adapter": adapter.name,
            "arm": prompt.arm,
            "sampling": sampling,
            "sample_index": sample,
            "text": "",
            "finish_reason": "error",
            "prompt_tokens": 0,
            "completion_tokens": 0,
        }
    )
