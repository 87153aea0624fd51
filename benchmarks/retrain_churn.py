"""Retrains a round's own recipe with other seeds and shows how much the adapters differ on the gate items.

    python benchmarks/retrain_churn.py runs/quickstart-1 --round 1 --seeds 4

Nothing but the seed changes: same rows, same settings, same start. Prints the accuracy of each training, how
often two of them disagree, the standard deviation of their true difference (what `gate.retrain_sd` should be), and how
many of the ordered pairs the gate's rule would accept. The run itself is read, never changed.
"""

import argparse
import math
import platform
import sys
import tempfile
from itertools import permutations
from pathlib import Path
from statistics import fmean

from agents.evaluation import student_prompts
from agents.history import accepted_rounds
from agents.loop import Loop
from agents.progress import ProgressPrinter
from agents.session import check_grader_trusted, open_loop, open_run
from curriculum.gate_odds import false_accept_rate, gate_p_value
from curriculum.records import Verdict
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_records
from student.interface import AdapterFiles, TrainingSettings


def retrain(loop: Loop, round_: int, seed: int, folder: Path) -> list[bool]:
    """Trains a round's recipe with a seed; whether each gate item is then answered right, by example id."""
    plan = loop.plan(round_)
    rows = read_records(loop.run.round_stage(round_, "build") / "training_set.jsonl", TrainingRow)
    start = None
    if loop.config.training.start == "accepted" and (accepted := accepted_rounds(loop, round_)):
        (start,) = (p for p in loop.run.round_stage(accepted[-1], "train").iterdir() if p.is_dir())
    settings = TrainingSettings(plan.learning_rate, plan.epochs, seed, start)
    adapter = AdapterFiles(f"seed-{seed}", folder / f"seed-{seed}")
    loop.student.train(rows, settings, folder / adapter.name, folder / "log", lambda p: loop.progress(adapter.name, p))
    gate = loop.split("gate")
    sampling = loop.config.student.sampling(loop.config.seed)
    prompts = student_prompts(loop, gate, "plain")
    answers = {a.example_id: a for a in loop.student.answer(prompts, adapter, sampling, set(), folder / "log")}
    grades = loop.grader.grade([(example, answers[example.id]) for example in gate])
    return [grade.verdict is Verdict.CORRECT for grade in grades]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--trust-grader", action="store_true", help="run the grader function the run names")
    arguments = parser.parse_args()
    run, config = open_run(arguments.run)
    check_grader_trusted(run, config, arguments.trust_grader)
    progress = ProgressPrinter()
    with tempfile.TemporaryDirectory() as folder, run, open_loop(run, config, progress) as loop:
        right = [retrain(loop, arguments.round, 1000 + seed, Path(folder)) for seed in range(arguments.seeds)]
    n = len(right[0])
    print(f"{platform.machine()}, Python {platform.python_version()}, base {config.student.base}")
    print("accuracy of each training:", ", ".join(f"{fmean(r):.1%}" for r in right))
    pairs = list(permutations(right, 2))
    gained = [sum(b and not a for a, b in zip(*pair, strict=True)) for pair in pairs]
    lost = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in pairs]
    discordant = fmean((g + x) / n for g, x in zip(gained, lost, strict=True))
    observed = fmean(((g - x) / n) ** 2 for g, x in zip(gained, lost, strict=True))
    true_sd = math.sqrt(max(0.0, observed - discordant / n))
    accepted = sum(
        gate_p_value(g, x, n, config.gate.retrain_sd) <= config.gate.alpha for g, x in zip(gained, lost, strict=True)
    )
    print(f"two trainings disagree on {discordant:.1%} of {n} gate items")
    print(
        f"standard deviation of their difference: {math.sqrt(observed):.1%} observed, {true_sd:.1%} beyond item noise"
    )
    print(f"accepted by the gate: {accepted} of {len(pairs)} ordered pairs")
    rate = false_accept_rate(n, discordant, config.gate.alpha, config.gate.retrain_sd, true_sd)
    print(f"by the formula, with that deviation: {rate:.1%} (the gate assumes {config.gate.retrain_sd:.1%})")


if __name__ == "__main__":
    sys.exit(main())
