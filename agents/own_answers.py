"""Whose words a round's new pool rows are taught in: the student answers them, and paraphrases what it could not."""

from collections.abc import Callable, Sequence
from pathlib import Path

from agents.evaluation import graded_answers, student_prompts
from agents.loop import Loop
from curriculum.extraction import taught_text, taught_texts
from curriculum.own_answers import Graded, choose_wordings, takes_own
from curriculum.prompts import load_prompt
from curriculum.records import Example, content_id
from curriculum.rundir import write_records
from student.chat_format import prompt_messages
from student.interface import AdapterFiles, Prompt

CHOICES = "targets.jsonl"
"""In a build's folder: what each new example is taught, with the reason."""
OWN = "own_"
"""What the folders of the answers begin with, inside the build's."""


def own_targets(
    loop: Loop, folder: Path, seed: int, adapter: AdapterFiles, drawn: Sequence[Example]
) -> Callable[[Example], Sequence[str]]:
    """The targets by `plan.targets: own`; answers, grades and choices are written into the folder.

    Args:
        loop: of the run.
        folder: of the stage that builds rows.
        seed: of the plan.
        adapter: the one the round begins with: it answers.
        drawn: distinct examples of the pool. Written ones keep what their teacher wrote.

    Raises:
        StudentError: the engine failed on more than a tenth of the answers.
        StopRequested: a stop was asked for; everything answered so far is journalled.
    """
    config, examples = loop.config.plan.own, sorted(drawn, key=lambda e: e.id)
    # Greedy, whatever the verdicts are by. The seed changes nothing but the answers' ids: an item may be asked again
    # in another round or for the control, in other batches, and no two answers share an id.
    own_seed = int(content_id([seed, folder.parent.name, folder.name], 8), 16)
    sampling = loop.config.student.sampling(loop.config.seed).model_copy(
        update={"temperature": 0.0, "top_p": 1.0, "seed": own_seed}
    )

    def ask(asked: Sequence[Example], prompts: Sequence[Prompt], name: str) -> dict[str, Graded]:
        made = graded_answers(loop, list(zip(asked, prompts, strict=True)), adapter, sampling, folder / f"{OWN}{name}")
        return {e.id: answered for e, answered in zip(asked, made, strict=True)}

    own = ask(examples, student_prompts(loop, examples, "plain"), "answers") if config.cap and examples else {}
    taken = takes_own(examples, own, config.cap, seed)
    left = [e for e in examples if e.solutions and e.id not in set(taken)] if config.paraphrase else []
    paraphrases = ask(left, _prompts(loop, left), "paraphrases") if left else {}
    made = choose_wordings(examples, own, taken, paraphrases, config.paraphrase)
    write_records(folder / CHOICES, [made[e.id].choice for e in examples])
    return lambda example: made[example.id].texts if example.id in made else taught_texts(example)


def _prompts(loop: Loop, examples: Sequence[Example]) -> list[Prompt]:
    """Each question with its first worked solution, to be written once more."""
    prompt, made = load_prompt("student_paraphrase"), []
    for example in examples:
        shown = prompt.render(question=example.question, solution=taught_text(example))
        made.append(Prompt(example.id, "paraphrase", prompt_messages(loop.prompt.text, example.history, shown)))
    return made
