"""`benchmarks/methods.py` on one candidate: its arms still run on what the product's functions take today."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.real
def test_arms_are_measured_and_told_as_ratios_of_an_epoch():
    script = Path(__file__).parents[1] / "benchmarks" / "methods.py"
    command = [sys.executable, str(script), "--candidates", "1", "--pairs", "1"]
    done = subprocess.run(
        [*command, "--arms", "training epoch,PRISM,entropy"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"^(.+?)  +\d+ +\d+ +([\d.]+) +[\d.]+ +\d+ +[\d.]+$", done.stdout, re.MULTILINE))
    assert list(told) == ["training epoch", "PRISM", "entropy"] and told["training epoch"] == "1.00"
