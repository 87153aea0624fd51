"""The vLLM engine beside the transformers engine on the quickstart's evaluation: answers per second, equal verdicts.

    python benchmarks/engines.py        (about ten minutes on two slow cores; --items 405 is the whole final split)

The same final items through `VllmStudent` and `LocalStudent`, greedy, as a run would; graded by the project's graders.
What an engine does once for an adapter (start, merge, canary, load) is measured with one prompt of its own and stands
apart. Verdicts are by the lenient extraction.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from machine import describe
from quickstart import final_items

from curriculum.grading import Grader
from curriculum.records import Sampling, StudentAnswer
from curriculum.student_config import VllmConfig
from student.interface import AdapterFiles, Prompt
from student.local import LocalStudent
from student.vllm_main import installed
from student.vllm_student import VllmStudent


def main() -> None:
    """Prints a line an engine, and what they agree on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="instead of the quickstart's")
    parser.add_argument("--items", type=int, default=135)
    parser.add_argument("--batch", type=int, help="of the transformers engine, instead of the quickstart's")
    parser.add_argument("--adapter", type=Path, help="of that base; none answers as the base")
    arguments = parser.parse_args()
    config, examples, prompts = final_items(arguments.base, arguments.items)
    update = {"engine": "vllm", "vllm": VllmConfig(max_length=1024)}
    if arguments.batch:
        update["batch_size"] = arguments.batch
    chosen = config.student.model_copy(update=update)
    adapter = AdapterFiles("adapter" if arguments.adapter else "base", arguments.adapter)
    print(describe("torch", "transformers"), installed(), sep=", ")
    print(f"{len(examples)} items, at most {config.student.max_new_tokens} tokens each, {adapter.name}")
    print("engine        once, s  answers, s  answers/s  tokens/s  right")
    found = {}
    with tempfile.TemporaryDirectory() as folder, Grader() as grader:
        log = Path(folder) / "log"
        for name in ("transformers", "vllm"):
            student = (
                VllmStudent(chosen, config.training, "", lambda _: None)
                if name == "vllm"
                else LocalStudent(chosen, config.training, "")
            )
            with closing(student):
                once, _ = answered(student, prompts[:1], adapter, Sampling(max_new_tokens=1), log)
                seconds, answers = answered(student, prompts, adapter, config.student.sampling(config.seed), log)
            if name == "transformers":
                seconds -= min(once, seconds)  # it loads the model for each job
            by_id = {answer.example_id: answer for answer in answers}
            grades = grader.grade([(e, by_id[e.id]) for e in examples])
            found[name] = [(by_id[g.example_id].text, g.verdict) for g in grades]
            tokens = sum(answer.completion_tokens for answer in answers)
            right = sum(grade.verdict == "correct" for grade in grades)
            rates = f"{len(answers) / seconds:>11.2f}{tokens / seconds:>10.1f}"
            print(f"{name:<14}{once:>7.1f}{seconds:>12.1f}{rates}{right:>7}")
    pairs = list(zip(*found.values(), strict=True))
    texts, verdicts = (sum(a[at] == b[at] for a, b in pairs) for at in (0, 1))
    print(f"equal verdicts: {verdicts}/{len(pairs)} {verdicts / len(pairs):.1%}; equal texts: {texts}/{len(pairs)}")


def answered(
    student: LocalStudent | VllmStudent, prompts: Sequence[Prompt], adapter: AdapterFiles, sampling: Sampling, log: Path
) -> tuple[float, list[StudentAnswer]]:
    """Seconds and answers."""
    since = time.perf_counter()
    answers = list(student.answer(prompts, adapter, sampling, set(), log))
    return time.perf_counter() - since, answers


if __name__ == "__main__":
    main()
