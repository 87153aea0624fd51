"""LiNeS and soups of the adapters of a finished bench, chosen on its probe and judged on its final split.

    python benchmarks/merging.py runs/bench-1 --strategy uniform --scales 1,0.75,0.5,0.25,0

Takes every training of a strategy. Prints what each adapter, the greedy soup (which begins with the best on the probe),
the uniform soup, LiNeS with each scale, and the uniform shrink of ΔW to the norm of each scale (LiNeS' control) answer
right; soups beside the best single one, scales and shrinks beside their own adapter, paired by item. The scales are of
the adapter that is best on the probe. Answers are kept in the folder given with --to, so that the same command goes on;
the bench itself is read, never changed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from machine import describe

from agents.bench import BEGAN
from agents.bench_training import TRAININGS
from agents.evaluation import evaluate_split
from agents.loop import Loop, adapter_stage
from agents.progress import ProgressPrinter
from agents.session import check_grader_trusted, open_loop
from curriculum.config import load_config
from curriculum.gate import answered_right
from curriculum.merging import choose_lines, greedy_soup
from curriculum.records import BASE, Split, content_id
from curriculum.report_words import change_words
from curriculum.round_records import Adapter
from curriculum.rundir import DONE, RunDir, read_record
from curriculum.statistics import paired_change
from student.interface import AdapterFiles, Scaled
from student.merging import CONFIG, WEIGHTS, Loaded, load_adapter, squared_norm


class Judge:
    """Answers of adapters on the probe, which chooses, and on the final split, which judges; each is given once."""

    def __init__(self, loop: Loop, to: Path) -> None:
        self.loop, self.to = loop, to

    def right(self, adapter: AdapterFiles, split: Split) -> dict[str, bool]:
        """Item → whether it was answered right."""
        return answered_right(evaluate_split(self.loop, adapter, split).grades)

    def made(self, parts: Sequence[tuple[AdapterFiles, float]]) -> AdapterFiles:
        """The mean of adapters, each scaled with depth."""
        name = f"merged-{content_id([[files.name, a] for files, a in parts], 12)}"
        folder = self.to / "adapters" / name
        if not folder.exists():
            scaled = [Scaled(files.folder, a) for files, a in parts if files.folder]
            self.loop.student.merge(scaled, None, folder, self.to / "merge.log")
        return AdapterFiles(name, folder, merged=True)

    def shrunk(self, adapter: AdapterFiles, like: AdapterFiles) -> AdapterFiles:
        """The adapter with all of its ΔW times one number, so that its norm is that of another one."""
        assert adapter.folder is not None and like.folder is not None
        own, other = load_adapter(adapter.folder), load_adapter(like.folder)
        factor = _norm(other) / _norm(own)
        name = f"shrunk-{content_id([adapter.name, like.name], 12)}"
        folder = self.to / "adapters" / name
        if not folder.exists():
            from safetensors.torch import save_file

            folder.mkdir(parents=True)
            config = own.config | {"lora_alpha": own.config["lora_alpha"] * factor}
            (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))
            save_file(own.tensors, folder / WEIGHTS, metadata={"format": "pt"})
        return AdapterFiles(name, folder, merged=True)


def _norm(of: Loaded) -> float:
    return sqrt(sum(map(squared_norm, of.updates().values())))


class Single(NamedTuple):
    """A training's adapter and its probe answers."""

    files: AdapterFiles
    probe: dict[str, bool]


def adapters(bench: Path, strategy: str) -> list[AdapterFiles]:
    """The trained adapters of a strategy, by seed."""
    found = []
    trainings = sorted((bench / TRAININGS).glob(f"{strategy}-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    for training in trainings:
        for record in sorted(training.glob("round_*/train/adapter.json")):
            if (record.parent / DONE).exists():
                adapter = read_record(record, Adapter)
                stage = adapter_stage(RunDir(training), adapter.round, adapter.name)
                found.append(AdapterFiles(adapter.name, stage / adapter.name))
    return found


def score(right: dict[str, bool]) -> Fraction:
    """The share that is right."""
    return Fraction(sum(right.values()), max(1, len(right)))


def line(name: str, judge: Judge, files: AdapterFiles, than: AdapterFiles | None = None) -> None:
    """Prints what an adapter gets right on the probe and the final split, and its change there from another."""
    probe, final = judge.right(files, "probe"), judge.right(files, "final")
    beside = ""
    if than is not None and than.name != files.name:
        before = judge.right(than, "final")
        both = final.keys() & before.keys()
        change = paired_change({i: before[i] for i in both}, {i: final[i] for i in both})
        beside = f"  {change_words(change)} from {than.name}"
    print(
        f"{name:<42} probe {sum(probe.values())}/{len(probe)}  final {sum(final.values())}/{len(final)} "
        f"{float(score(final)):.1%}{beside}"
    )


def compare(judge: Judge, singles: list[AdapterFiles], scales: list[float]) -> None:
    """Prints the table."""
    base = AdapterFiles(BASE, None)
    line("base", judge, base)
    known = [Single(files, judge.right(files, "probe")) for files in singles]
    ordered = [s.files for s in sorted(known, key=lambda s: (-score(s.probe), s.files.name))]
    best = ordered[0]
    for files in singles:
        line(files.name, judge, files)

    def mean(members: Sequence[AdapterFiles]) -> AdapterFiles:
        return members[0] if len(members) == 1 else judge.made([(files, 1.0) for files in members])

    tried = greedy_soup(ordered, lambda members: score(judge.right(mean(members), "probe")))
    accepted = [t for t in tried if t.accepted]
    members = accepted[-1].members if accepted else (0,)
    line(f"greedy soup of {len(members)}", judge, mean([ordered[at] for at in members]), best)
    line(f"uniform soup of {len(ordered)}", judge, mean(ordered), best)
    scaled = {a: best if a == 1 else judge.made([(best, a)]) for a in scales}
    answered = [(files.name, a, judge.right(files, "probe")) for a, files in scaled.items()]
    chosen = choose_lines(1, judge.right(base, "probe"), answered, False).chosen.a
    for a, files in scaled.items():
        line(f"LiNeS of the best, a = {a:g}{' (chosen)' if a == chosen else ''}", judge, files, best)
        if a != 1:
            line(f"uniform shrink to the norm of a = {a:g}", judge, judge.shrunk(best, files), best)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--strategy", default="uniform")
    parser.add_argument("--scales", default="1,0.75,0.5,0.25,0", help="LiNeS' values, 1 among them")
    parser.add_argument("--to", type=Path, help="folder for answers and merged adapters; BENCH-merging if left out")
    parser.add_argument("--trust-grader", action="store_true", help="run the grader function the bench names")
    arguments = parser.parse_args()
    bench = arguments.bench.resolve()
    to = (arguments.to or bench.with_name(f"{bench.name}-merging")).resolve()
    if not (bench / BEGAN).is_file():
        parser.error(f"{bench}: expected the folder of a bench")
    scales = sorted({float(a) for a in arguments.scales.split(",")} | {1.0}, reverse=True)
    singles = adapters(bench, arguments.strategy)
    if not singles:
        parser.error(f"{bench}: no finished training of {arguments.strategy}")
    config, run = load_config(bench / "config.yaml"), RunDir(bench)
    check_grader_trusted(run, config, arguments.trust_grader)
    with open_loop(run, config, ProgressPrinter()) as loop:
        for stage in ("prepare", "catalogue", "label"):  # read where they are; answers are kept apart
            (to / stage).parent.mkdir(parents=True, exist_ok=True)
            if not (to / stage).exists():
                (to / stage).symlink_to(bench / stage)
        for done in bench.glob(f"answers/*/*/{DONE}"):  # the bench's own answers are not given again
            there = to / done.parent.relative_to(bench)
            there.parent.mkdir(parents=True, exist_ok=True)
            if not there.exists():
                there.symlink_to(done.parent)
        print(describe("torch", "transformers", "peft"))
        print(f"base {config.student.base}, {len(singles)} adapters of {bench.name}")
        compare(Judge(replace(loop, run=RunDir(to)), to), singles, scales)


if __name__ == "__main__":
    sys.exit(main())
