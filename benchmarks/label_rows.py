"""Labels the rows of `teacher_client.py` with one of three programs: `python label_rows.py PROGRAM JOB`.

Runs in the program's own environment: only its own function imports anything of it. JOB is a JSON file with the
server's address, the rows (number and prompt) and the number of requests at once. Prints one JSON line: seconds of the
labelling call without imports, and how many rows came back with a label that fits the schema.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

SKILLS = 20
MOST_TOKENS = 2048


class Label(BaseModel):
    """Of one question."""

    id: str
    reason: str
    skills: list[str]
    difficulty: int


class Labels(BaseModel):
    """A reply."""

    labels: list[Label]


def question(row: int) -> str:
    """What is asked about; the server knows the row by it."""
    return f"Row {row}: Anna packs {row % 97 + 3} boxes of {row % 13 + 2} eggs and sells {row % 7}. How many are left?"


def tutelage(job: dict[str, Any], folder: Path) -> tuple[float, list[int]]:
    """As a run labels, one question in a request."""
    from contextlib import closing

    import openai.resources.chat  # noqa: F401  (which the SDK would import at the first request)

    from agents.ledger import Ledger
    from agents.llm_teacher import LLMTeacher
    from curriculum.grading import Grader
    from curriculum.records import SkillLabel

    examples, catalogue, config = setting(job)
    numbers = {example.id: row["row"] for example, row in zip(examples, job["rows"], strict=True)}
    since = time.perf_counter()
    ledger = Ledger(folder / "calls.jsonl", config.teacher.budget)
    with closing(LLMTeacher(config, ledger, Grader(), lambda *_: None, lambda _: None, lambda: None)) as teacher:
        made = list(teacher.label(examples, catalogue))
    seconds = time.perf_counter() - since
    return seconds, [numbers[one.example_id] for one in made if isinstance(one, SkillLabel)]


def setting(job: dict[str, Any]) -> tuple[Sequence[Any], Any, Any]:
    """Examples, catalogue and config for this program's client."""
    from curriculum.config import Config
    from curriculum.records import Example, Skill, SkillCatalogue

    splits = {"probe": 1, "gate": 1, "final": 1}
    teacher = {"kind": "llm", "model": "gpt-4", "base_url": job["url"] + "/v1", "provider": "vllm", "rows_per_call": 1}
    config = Config.model_validate(
        {
            "data": {"kind": "file", "path": "x", "format": "gsm8k", "splits": splits},
            "plan": {"rows_per_round": 1},
            "teacher": teacher | {"concurrency": job["concurrency"]},
        }
    )
    examples = [
        Example.make(question=question(row["row"]), gold="1", grader="numeric", source="made") for row in job["rows"]
    ]
    skills = [
        Skill(id=f"skill_{n:02d}", name=f"skill {n:02d}", description=f"What is number {n}.", writable=True)
        for n in range(SKILLS)
    ]
    return examples, SkillCatalogue(teacher="gpt-4", skills=tuple(skills)), config


def curator(job: dict[str, Any], folder: Path) -> tuple[float, list[int]]:
    """Bespoke Curator's `LLM` over its OpenAI backend, its own retries; rate limits as high as they go."""
    # It counts tokens with an encoding it would download; litellm, which it needs, brings the file.
    litellm = find_spec("litellm")
    assert litellm is not None and litellm.origin is not None
    encodings = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ |= {"TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1"}
    os.environ["TIKTOKEN_CACHE_DIR"] = str(encodings)
    from bespokelabs import curator

    class Labeller(curator.LLM):  # type: ignore[misc]
        response_format = Labels

        def prompt(self, row: dict[str, Any]) -> str:
            return str(row["prompt"])

        def parse(self, row: dict[str, Any], response: Labels) -> dict[str, Any]:
            return {"row": row["row"], "label": response.model_dump_json()}

    limits = {"max_concurrent_requests": job["concurrency"], "max_requests_per_minute": 10**6}
    limits |= {"max_tokens_per_minute": 10**9}
    rows = [{"row": row["row"], "prompt": row["prompt"]} for row in job["rows"]]
    since = time.perf_counter()
    labeller = Labeller(
        model_name="gpt-4",
        backend="openai",
        generation_params={"temperature": 0.0, "max_tokens": MOST_TOKENS},
        backend_params={"base_url": job["url"] + "/v1", **limits},
    )
    made = labeller(rows, working_dir=str(folder))
    made = getattr(made, "dataset", made)
    return time.perf_counter() - since, [one["row"] for one in made if fits(one["label"])]


def distilabel(job: dict[str, Any], folder: Path) -> tuple[float, list[int]]:
    """The `TextGeneration` of distilabel over its `OpenAILLM`; its batch is as large as the number of requests at once.

    It asks for tool calls. Of itself it does not ask again where a reply does not fit, and then loses the whole batch.
    """
    from distilabel.models.llms import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    rows = [{"row": row["row"], "instruction": row["prompt"]} for row in job["rows"]]
    since = time.perf_counter()
    with Pipeline(name="labelling", cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=job["concurrency"])
        label = TextGeneration(
            llm=OpenAILLM(
                model="gpt-4",
                base_url=job["url"] + "/v1",
                api_key="none",
                structured_output={"schema": Labels, "max_retries": 3},
                generation_kwargs={"temperature": 0.0, "max_new_tokens": MOST_TOKENS},
            ),
            input_batch_size=job["concurrency"],
        )
        load >> label
    made = pipeline.run(use_cache=True)["default"]["train"]
    return time.perf_counter() - since, [one["row"] for one in made if fits(one["generation"])]


def fits(text: str | None) -> bool:
    """Whether a reply fits the schema."""
    try:
        Labels.model_validate_json(text or "")
    except ValidationError:
        return False
    return True


PROGRAMS: dict[str, Callable[[dict[str, Any], Path], tuple[float, list[int]]]] = {
    "tutelage": tutelage,
    "curator": curator,
    "distilabel": distilabel,
}

if __name__ == "__main__":
    os.environ["OPENAI_API_KEY"] = "none"
    path = Path(sys.argv[2])
    taken, labelled = PROGRAMS[sys.argv[1]](json.loads(path.read_text()), path.parent / "state")
    print(json.dumps({"seconds": taken, "labelled": len(set(labelled)), "twice": len(labelled) - len(set(labelled))}))
