"""Training in several processes: the adapter of one, one message when a process dies, and nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from samples import training_row
from tiny_model import make_tiny_model

from curriculum.config import StudentConfig, TrainingConfig
from curriculum.errors import TrainingError
from student.data_parallel import command
from student.interface import TrainingSettings
from student.local import LocalStudent
from student.lora import sum_over_ranks

TRAINING = TrainingConfig(rank=4, alpha=8, batch_tokens=160, processes=2)
QUESTIONS = ["x", "What is 12 plus 7?", "Solve the problem.", "yes no"]
TARGETS = ["Answer: 19", "19", "true", "red green blue"]
pytestmark = pytest.mark.real


def rows(count):
    return [
        training_row(
            id=f"r{at}", example_id=f"r{at}", question=QUESTIONS[at % 4], target=TARGETS[at % 3], weight=0.5 + at % 2
        )
        for at in range(count)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


def student(base, training=TRAINING):
    return closing(LocalStudent(StudentConfig(base=str(base), dtype="float32"), training, "Be brief."))


def processes_of(folder):
    """Ids of the processes that were told of this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in words:
                found.append(int(entry.name))
    return found
