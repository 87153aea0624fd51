"""The student's worker process: answers and trains, one job after another, each in a fork of its own.

Imports what every job needs before the first fork, so that it is loaded once a run.
"""

from collections.abc import Iterator

import peft  # noqa: F401
import torch  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

from student.data_parallel import train_parallel
from student.embeddings import embed
from student.engine_worker import answer
from student.first_token import entropies
from student.loading import check, encode
from student.merging import merge_adapters
from student.ranking_worker import influence
from student.step_scoring import score_steps
from student.subprocess_job import Event, serve
from student.train_worker import train


def work(job: Event) -> Iterator[Event]:
    """Does a job: `do` says which."""
    jobs = {
        "answer": answer,
        "check": check,
        "embed": embed,
        "encode": encode,
        "influence": influence,
        "entropies": entropies,
        "merge_adapters": merge_adapters,
        "score_steps": score_steps,
        "train": train,
        "train_parallel": train_parallel,
    }
    return jobs[job["do"]](job)


if __name__ == "__main__":
    serve(work)
