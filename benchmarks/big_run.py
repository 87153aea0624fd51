"""Makes a run of any size for benchmarks of reports: the real loop over made-up items, with a fake student.

    python benchmarks/big_run.py FOLDER [--rounds 10] [--skills 60] [--answers 20000]

Everything in the folder is written by the loop's own nodes. The items are sums told as stories of usual length; the
student is the fake one of the tests, whose answers are worked out in words first and which has curves of training.
Each round asks so many answers: half of them probe items, which the current adapter answers, half gate items, which the
candidate answers. An item needs one skill of five difficulties, or two.
"""

import argparse
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path

import yaml

from agents.graph import run_plain
from agents.progress import ProgressPrinter
from agents.reporting import write_pages
from agents.session import create_run, open_loop
from curriculum.config import load_config
from curriculum.records import Sampling, StudentAnswer, content_id
from curriculum.round_records import TrainingRow
from curriculum.rundir import RunDir
from student.fakes import FakeStudent
from student.interface import AdapterFiles, Progress, Prompt, TrainingResult, TrainingSettings

FINAL, POOL = 2_000, 6_000
STEPS = 200
WORKED = (
    "Let us see. There are {a} of them at first, and then more are brought in the evening, so that we count what there "
    "is, carry the one where it is needed, and write the number down. I think that the sum has to be about {b}."
)
ANSWERING = ("it is not clear to me", "the number cannot be known", "I would rather not say")


class WordyStudent(FakeStudent):
    """The fake student with answers of usual length and curves of training of usual shape."""

    def answer(
        self,
        prompts: Sequence[Prompt],
        adapter: AdapterFiles,
        sampling: Sampling,
        finished: Set[str],
        log: Path,
        samples: int | None = None,
    ) -> Iterator[StudentAnswer]:
        """As the fake's, worked out in words; wrong ones are wrong numbers, no numbers, or cut."""
        for answer in super().answer(prompts, adapter, sampling, finished, log, samples):
            drawn = random.Random(answer.id)
            text = WORKED.format(a=drawn.randrange(900), b=drawn.randrange(900)) + "\n" + answer.text
            if answer.text.endswith("no idea"):
                kind = drawn.randrange(4)
                said = (f"Answer: {drawn.randrange(1000, 9000)}", f"Answer: {drawn.choice(ANSWERING)}", "Answer:")
                text = text.removesuffix(answer.text) + (*said, said[0])[kind]
            words = len(text.split())
            yield answer.model_copy(update={"text": text, "prompt_tokens": 70, "completion_tokens": words})

    def train(
        self,
        rows: Sequence[TrainingRow],
        settings: TrainingSettings,
        folder: Path,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> TrainingResult:
        """As the fake's; the loss falls and the gradients settle over 200 steps."""
        made = super().train(rows, settings, folder, log, progress)
        noise = random.Random(settings.seed)
        losses = [2 * math.exp(-step / 60) + 0.3 + 0.1 * noise.random() for step in range(STEPS)]
        norms = tuple(0.4 + noise.random() for _ in range(STEPS))
        return made._replace(steps=STEPS, losses=tuple(losses), gradient_norms=norms)


def write_items(path: Path, skills: int, count: int) -> None:
    """Sums told as stories, the skills in turn; one in five needs a second skill."""
    drawn = random.Random(skills)
    names = [f"counting_what_is_left_{number:02d}" for number in range(skills)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            a, b = drawn.randrange(10, 10**5), drawn.randrange(10, 10**5)
            needs = [names[number % skills]] + ([drawn.choice(names)] if number % 5 == 0 else [])
            item = {
                "question": f"In the {content_id(number, 6)} store of the {content_id([number], 6)} street {a} boxes "
                f"stand on the shelves when the day begins. In the evening a lorry of {content_id([a, b], 5)} & Sons "
                f"brings {b} more, and nobody takes one away. How many boxes are there at night?",
                "gold": str(a + b),
                "skills": list(dict.fromkeys(needs)),
                "difficulty": 1 + number // skills % 5,
            }
            file.write(json.dumps(item) + "\n")


def make_run(folder: Path, rounds: int, skills: int, answers: int) -> RunDir:
    """Runs the loop into `folder/big`, or goes on with it, and returns the finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"probe": answers // 2, "gate": answers - answers // 2, "final": FINAL}
    settings = {
        "rounds": rounds,
        "runs_dir": str(folder),
        "data": {"kind": "file", "path": str(folder / "items.jsonl"), "format": "examples", "splits": sizes},
        "student": {"engine": "fake", "base": "fake", "max_new_tokens": 128},
        "plan": {"rows_per_round": 8 * skills, "write_share": 0, "replay_rows": 24 * skills, "patience": rounds + 1},
        "training": {"epochs": 1},
        "gate": {"retrain_sd": 0.005},
    }
    path = folder / "big.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path)
    if not (folder / "big").exists():
        write_items(folder / "items.jsonl", skills, answers + FINAL + POOL)
        create_run(config, path, "big")
    run = RunDir(folder / "big")
    with run, open_loop(run, config, ProgressPrinter()) as loop:
        loop.student = WordyStudent(lambda: loop.examples, loop.prompt.text)
        run_plain(loop)
        write_pages(run, config)
    return run


def main() -> None:
    """Makes the run and says where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--skills", type=int, default=60)
    parser.add_argument("--answers", type=int, default=20_000, help="that each round asks for")
    args = parser.parse_args()
    print(make_run(args.folder, args.rounds, args.skills, args.answers).path)


if __name__ == "__main__":
    main()
