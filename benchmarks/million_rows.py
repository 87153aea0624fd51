"""Time and memory of the profile and the mixture as the pool grows to a million rows.

    python benchmarks/million_rows.py        (about two minutes, no model, no network)

200 skills, three to a row, five difficulties; one row in a hundred is graded, as a probe is, and two answers in three
are wrong and diagnosed. Every size runs in processes of its own; the median counts. Timed, in seconds of one core, are
the library's own functions in one round: `build_profile`; then `index_pool`, the sizes of the pool, `make_plan`,
`draw_pool` and `training_rows` of 2,000 rows. Peak memory is the whole process's, ids and skills of the pool included;
"before" is the peak when the functions began.

The last lines are the records as the loop holds them: reading examples and labels of the pool from their files.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from pathlib import Path
from statistics import median

from machine import describe

from curriculum.config import Config
from curriculum.mixture import draw_pool, index_pool, training_rows
from curriculum.plan import make_plan
from curriculum.profile import build_profile
from curriculum.records import Diagnosis, Example, Grade, Skill, SkillCatalogue, SkillLabel, Verdict
from curriculum.rundir import read_records, write_records

SIZES = (10_000, 100_000, 1_000_000)
READ_SIZES = (10_000, 100_000)
REPEATS = 3
SKILLS = 200
NAME = "skill_{:03d}"
GRADED = 100
"""One row in so many is graded."""
ROWS = 2_000
VERDICTS = (Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSED)


def label(id_: str, skills: tuple[str, ...], difficulty: int) -> SkillLabel:
    """The label of a row."""
    return SkillLabel(
        example_id=id_, teacher="offline", prompt_hash="h", skills=skills, difficulty=difficulty, reason=""
    )


def example(number: int) -> Example:
    """A row of the pool."""
    return Example.make(
        question=f"A question of usual length, the {number}th of its kind, with all that is needed to answer it.",
        gold=str(number),
        grader="numeric",
        source=f"rows.jsonl:{number}",
    ).model_copy(update={"split": "pool"})


def draw_labels(rows: int) -> list[tuple[str, tuple[str, ...], int]]:
    """Id, skills and difficulty of each row, sorted by id as a run's files are; texts are objects of their own."""
    random_ = random.Random(rows)
    ids = sorted(f"{random_.getrandbits(64):016x}" for _ in range(rows))
    numbers = range(SKILLS)
    return [(id_, tuple(map(NAME.format, random_.sample(numbers, 3))), random_.randint(1, 5)) for id_ in ids]


def one_round(rows: int) -> None:
    """Prints seconds of profile and mixture, and the peaks of memory before and after, in MB."""
    pool = draw_labels(rows)
    names = map(NAME.format, range(SKILLS))
    catalogue = SkillCatalogue(teacher="offline", skills=tuple(Skill(id=s, name=s, writable=False) for s in names))
    probe = {f"probe {id_}": label(f"probe {id_}", skills, level) for id_, skills, level in pool[::GRADED]}
    grades = [grade(id_, VERDICTS[n % 3]) for n, id_ in enumerate(probe)]
    diagnoses = [diagnosis(id_, probe[id_].skills) for n, id_ in enumerate(probe) if n % 3]
    config = Config.model_validate(CONFIG)
    before = peak_mb()
    since = time.process_time()
    profile = build_profile(1, "base", probe, grades, diagnoses, catalogue)
    profiled = time.process_time()
    index = index_pool(pool)
    plan = make_plan(1, config, profile, catalogue, index.sizes(), [], {}, 0)
    draws = draw_pool(plan, index, {}, config.plan.max_repeats).draws
    examples = {draw.example_id: EXAMPLE.model_copy(update={"id": draw.example_id}) for draw in draws}
    labels = {id_: label(*pool[bisect_left(pool, (id_,))]) for id_ in examples}  # type: ignore[arg-type]
    made = training_rows(plan, draws, examples, [], [], labels, lambda e: (e.gold,), config.plan.uniform_floor)
    mixed = time.process_time()
    assert len(made) == ROWS
    print(profiled - since, mixed - profiled, before, peak_mb())


def read_back(rows: int) -> None:
    """Prints seconds to read examples and labels of a pool, and the peaks of memory before and after, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        examples, labels = Path(folder) / "examples.jsonl", Path(folder) / "labels.jsonl"
        # Another process writes, so that the peak is that of reading.
        subprocess.run([sys.executable, __file__, "write", str(rows), folder], check=True)
        before = peak_mb()
        since = time.process_time()
        kept = read_records(examples, Example), read_records(labels, SkillLabel)
        print(time.process_time() - since, 0.0, before, peak_mb())
        assert len(kept[0]) == len(kept[1]) == rows


def write(rows: int, folder: Path) -> None:
    """Writes the files that `read_back` reads."""
    write_records(folder / "examples.jsonl", (example(number) for number in range(rows)))
    write_records(folder / "labels.jsonl", (label(*row) for row in draw_labels(rows)))


def grade(id_: str, verdict: Verdict) -> Grade:
    """The grade of a probe answer."""
    return Grade(
        answer_id=f"answer {id_}",
        example_id=id_,
        adapter="base",
        grader="numeric",
        verdict=verdict,
        strict_verdict=verdict,
        extracted=None,
        strict_extracted=None,
    )


def diagnosis(id_: str, skills: tuple[str, ...]) -> Diagnosis:
    """What a failed probe answer shows to be missing."""
    return Diagnosis(
        answer_id=f"answer {id_}",
        example_id=id_,
        teacher="offline",
        prompt_hash="h",
        missing_skills=skills,
        error_kind="wrong",
        reason="",
    )


EXAMPLE = example(0)
CONFIG = {
    "rounds": 1,
    "data": {"kind": "file", "path": "rows.jsonl", "format": "examples", "splits": {"probe": 1, "gate": 1, "final": 1}},
    "plan": {"rows_per_round": ROWS, "write_share": 0.0},
}


def peak_mb() -> float:
    """Most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(what: str, rows: int) -> list[float]:
    """The medians of what a process of its own prints, over some repeats."""
    command = [sys.executable, __file__, what, str(rows)]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(REPEATS)]
    return [median(map(float, values)) for values in zip(*runs, strict=True)]


def main() -> None:
    """Prints the table."""
    print(describe("numpy", "pydantic"))
    print("      rows  profile, s  mixture, s   both, s  growth  before, MB  peak, MB")
    last = None
    for rows in SIZES:
        profile, mixture, before, peak = measure("round", rows)
        growth = f"{(profile + mixture) / last:.1f} ×" if last else "–"
        last = profile + mixture
        print(f"{rows:>10,} {profile:>11.2f} {mixture:>11.2f} {last:>9.2f} {growth:>7} {before:>11.0f} {peak:>9.0f}")
    for rows in READ_SIZES:
        seconds, _, before, peak = measure("read", rows)
        print(f"reading examples and labels of {rows:,} rows: {seconds:.1f} s, {peak - before:.0f} MB")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "write":
        write(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        {"round": one_round, "read": read_back}[sys.argv[1]](int(sys.argv[2]))
