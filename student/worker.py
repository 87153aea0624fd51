"""The student's worker process: answers and trains, one job after another, each in a fork of its own.

Imports what every job needs before the first fork, so that it is loaded once a run.
"""

from collections.abc import Iterator

import peft  # noqa: F401
import torch  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

from student.data_parallel import train_parallel
from student.engine_worker import answer
from student.loading import check, encode
from student.step_scoring import score_steps
from student.subprocess_job import Event, serve
from student.train_worker import train


def work(job: Event) -> Iterator[Event]:
    """Does a job: `do` says which."""
    jobs = {"answer": answer, "check": check, "encode": encode, "train": train, "train_parallel": train_parallel}
    jobs["score_steps"] = score_steps
    return jobs[job["do"]](job)


if __name__ == "__main__":
    serve(work)
