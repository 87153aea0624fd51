"""LiNeS and soups against the mathematics: dense matrices, brute force, peft itself."""

import itertools
import json
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_run import make_adapter
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import make_tiny_model

from curriculum.config import load_config
from curriculum.errors import ConfigError, StudentError, UserError
from curriculum.merging import choice_halves, choose_lines, greedy_soup, merging_answers
from curriculum.records import Example
from student.interface import AdapterFiles, Scaled
from student.local import LocalStudent
from student.merging import (
    A_END,
    B_END,
    Loaded,
    Update,
    depth_factor,
    layer_of,
    load_adapter,
    lower_rank,
    mean_update,
    merge,
    squared_norm,
)

QUICKSTART = Path(__file__).parents[1] / "runs/configs/quickstart.yaml"
LAYERS = 3
MODULES = [f"base.model.layers.{layer}.mlp.experts.{expert}.up" for layer in range(LAYERS) for expert in (0, 7)]


def adapter(seed: int, rank: int, alpha: float, stabilised: bool = False) -> Loaded:
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in MODULES:
        tensors[module + A_END] = torch.randn(rank, 6, generator=draw)
        tensors[module + B_END] = torch.randn(5, rank, generator=draw)
    return Loaded({"r": rank, "lora_alpha": alpha, "use_rslora": stabilised, "peft_type": "LORA"}, tensors)


def dense(of: Loaded) -> dict[str, torch.Tensor]:
    """ΔW as peft computes it, in float64."""
    scaling = of.config["lora_alpha"] / (sqrt(of.config["r"]) if of.config["use_rslora"] else of.config["r"])
    return {m: scaling * of.tensors[m + B_END].double() @ of.tensors[m + A_END].double() for m in MODULES}


adapters = st.lists(
    st.builds(
        adapter,
        st.integers(0, 99),
        st.integers(1, 4),
        st.sampled_from([1.0, 8.0, 32.0]),
        st.booleans(),
    ),
    min_size=2,
    max_size=4,
)
scales = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])


# LiNeS


@given(a=st.floats(0, 1), layers=st.integers(2, 200))
def test_factors_rise_evenly_from_a_to_exactly_one(a: float, layers: int) -> None:
    factors = [depth_factor(a, layer, layers) for layer in range(layers)]
    assert factors[-1] == 1 and factors[0] == pytest.approx(a, abs=1e-12)
    assert factors == pytest.approx([a + (1 - a) * layer / (layers - 1) for layer in range(layers)])
    assert depth_factor(a, None, layers) == a and depth_factor(1, 0, layers) == 1


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("base_model.model.model.layers.11.self_attn.q_proj.lora_B.weight", 11),
        ("base_model.model.model.layers.2.mlp.experts.31.up_proj.lora_B.weight", 2),
        ("base_model.model.transformer.h.0.attn.c_attn.lora_B.weight", 0),
        ("base_model.model.lm_head.lora_B.weight", None),
        ("base_model.model.l2norm.fc1.lora_B.weight", None),
    ],
)
def test_the_layer_is_the_first_number_of_a_name(name: str, layer: int | None) -> None:
    assert layer_of(name) == layer


def test_a_layer_that_the_base_has_not_is_refused_and_a_lone_layer_keeps_all() -> None:
    with pytest.raises(StudentError, match="a base with 3 layers, got one of its layer 3"):
        depth_factor(0.5, 3, 3)
    assert depth_factor(0.25, 0, 1) == 1


@given(a=scales, rank=st.integers(1, 3))
@settings(deadline=None)
def test_lines_scales_the_update_of_each_layer_and_nothing_else(a: float, rank: int) -> None:
    one = adapter(3, rank, 8.0)
    made, facts = merge([(one, a)], LAYERS, 1)
    assert made.config == one.config and facts["rank"] == rank and facts["error"] is None
    before, after = dense(one), dense(made)
    for module in MODULES:
        factor = a + (1 - a) * layer_of(module) / (LAYERS - 1)  # type: ignore[operator]
        assert torch.allclose(after[module], factor * before[module], atol=1e-5)
        assert torch.equal(made.tensors[module + A_END], one.tensors[module + A_END])
        if a == 1 or layer_of(module) == LAYERS - 1:
            assert torch.equal(made.tensors[module + B_END], one.tensors[module + B_END])
    assert facts["norm"] == pytest.approx(sqrt(sum(float(w.square().sum()) for w in after.values())), rel=1e-5)


# Soups


@given(of=adapters, a=scales)
@settings(deadline=None)
def test_the_mean_is_that_of_the_dense_updates_whatever_ranks_and_scalings(of: list[Loaded], a: float) -> None:
    made, facts = merge([(of[0], a), *((one, 1.0) for one in of[1:])], LAYERS, None)
    scaled = dense(merge([(of[0], a)], LAYERS, None)[0])
    after = dense(made)
    for module in MODULES:
        mean = torch.stack([scaled[module], *(dense(one)[module] for one in of[1:])]).mean(0)
        assert torch.allclose(after[module], mean, atol=1e-4, rtol=1e-4)
    assert facts["rank"] == made.config["r"] == sum(one.config["r"] for one in of) and facts["error"] is None
    assert made.config["lora_alpha"] / made.config["r"] == pytest.approx(of[0].scaling)


@given(rank=st.integers(1, 8), limit=st.integers(1, 8), outputs=st.integers(1, 7), inputs=st.integers(1, 7))
@settings(deadline=None)
def test_the_way_back_is_the_best_of_its_rank(rank: int, limit: int, outputs: int, inputs: int) -> None:
    draw = torch.Generator().manual_seed(rank)
    update = Update(torch.randn(outputs, rank, generator=draw), torch.randn(rank, inputs, generator=draw))
    whole = update.b.double() @ update.a.double()
    u, values, v = torch.linalg.svd(whole, full_matrices=False)
    best = (u[:, :limit] * values[:limit]) @ v[:limit]
    made, lost = lower_rank(update, limit)
    assert made.b.shape == (outputs, limit) and made.a.shape == (limit, inputs)
    got = made.b.double() @ made.a.double()
    assert torch.linalg.norm(whole - got) == pytest.approx(float(torch.linalg.norm(whole - best)), abs=1e-4)
    assert lost == pytest.approx(float(values[limit:].square().sum()), abs=1e-6)
    assert squared_norm(update) == pytest.approx(float(whole.square().sum()), rel=1e-6)


def test_a_limit_brings_a_soup_back_and_says_what_that_left_out() -> None:
    of = [adapter(1, 2, 4.0), adapter(2, 2, 8.0)]
    whole, _ = merge([(one, 1.0) for one in of], LAYERS, 4)
    made, facts = merge([(one, 1.0) for one in of], LAYERS, 2)
    exact, near = dense(whole), dense(made)
    left = sum(float((exact[m] - near[m]).square().sum()) for m in MODULES)
    assert made.config["r"] == facts["rank"] == 2 and made.config["lora_alpha"] == 4.0
    assert facts["error"] == pytest.approx(sqrt(left / sum(float(w.square().sum()) for w in exact.values())), rel=1e-3)
    assert 0.1 < facts["error"] < 0.9


def test_copies_of_one_adapter_make_a_soup_of_no_higher_rank_without_error() -> None:
    one = adapter(5, 2, 4.0)
    made, facts = merge([(one, 1.0)] * 3, LAYERS, 2)
    assert facts["error"] == pytest.approx(0, abs=1e-6)
    assert all(torch.allclose(dense(made)[m], dense(one)[m], atol=1e-4) for m in MODULES)


def test_adapters_on_other_modules_do_not_go_together() -> None:
    one, other = adapter(1, 2, 4.0), adapter(2, 2, 4.0)
    fewer = Loaded(other.config, {name: t for name, t in other.tensors.items() if ".0." not in name})
    with pytest.raises(StudentError, match="on the same modules"):
        merge([(one, 1.0), (fewer, 1.0)], LAYERS, None)
    assert torch.equal(mean_update([Update(torch.ones(2, 1), torch.ones(1, 2))]).b, torch.ones(2, 1))


# On the disk, as peft reads it


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.real
def test_the_worker_writes_what_peft_loads_and_one_alone_byte_for_byte(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = load_config(QUICKSTART, ["student.engine=transformers", f"student.base={base}", "student.dtype=float32"])
    ranks = (4, 2)
    for rank in ranks:
        make_adapter(base, tmp_path / f"r{rank}", rank)
    one, other = (tmp_path / f"r{rank}" for rank in ranks)
    student = LocalStudent(config.student, config.training, "")
    log = tmp_path / "log"

    def weights(folder: Path | None) -> dict[str, torch.Tensor]:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if folder is not None:
            model = PeftModel.from_pretrained(model, folder).merge_and_unload()
        return dict(model.state_dict())

    try:
        made = [
            student.merge(parts, limit, tmp_path / name, log)
            for name, parts, limit in (
                ("same", [Scaled(one, 1.0)], None),
                ("half", [Scaled(one, 0.5)], None),
                ("soup", [Scaled(one, 0.5), Scaled(other, 1.0)], None),
                ("again", [Scaled(one, 0.5), Scaled(other, 1.0)], None),
                ("low", [Scaled(one, 1.0), Scaled(other, 1.0)], 4),
            )
        ]
    finally:
        student.close()
    same, half, soup, _, low = made
    for file in one.iterdir():
        assert (tmp_path / "same" / file.name).read_bytes() == file.read_bytes()
        assert (tmp_path / "soup" / file.name).read_bytes() == (tmp_path / "again" / file.name).read_bytes()
        assert (tmp_path / "half" / file.name).stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "half" / "adapter_config.json").read_bytes() == (one / "adapter_config.json").read_bytes()
    assert (same.rank, half.rank, soup.rank, low.rank) == (4, 4, 6, 4) and half.norm < same.norm
    assert json.loads((tmp_path / "soup" / "adapter_config.json").read_text())["r"] == 6
    assert low.error is not None and 0 < low.error < 1 and soup.error is None
    plain, first, second = weights(None), weights(one), weights(other)
    scaled, mean = weights(tmp_path / "half"), weights(tmp_path / "soup")
    for name, before in plain.items():
        factor = 1.0 if ".layers.1." in name else 0.5  # of two layers, the first
        update = factor * (first[name] - before)
        assert torch.allclose(scaled[name], before + update, atol=1e-5)
        assert torch.allclose(mean[name], before + (update + second[name] - before) / 2, atol=1e-5)
    assert not torch.allclose(first["model.layers.0.mlp.up_proj.weight"], plain["model.layers.0.mlp.up_proj.weight"])


def test_an_adapter_that_is_more_than_a_plain_lora_is_not_merged(base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "a", 2)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert load_adapter(tmp_path / "a").config == config
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | {"rank_pattern": {"q_proj": 8}}))
    with pytest.raises(StudentError, match=r"expected a plain LoRA .* got one with rank_pattern"):
        load_adapter(tmp_path / "a")


# The choices


def right(items: str) -> dict[str, bool]:
    """`1` for right, `0` for wrong, `-` for no grade."""
    return {str(at): of == "1" for at, of in enumerate(items) if of != "-"}


@pytest.mark.parametrize(
    ("current", "by_a", "chosen"),
    [
        ("1100", {1: "0011", 0.5: "1110", 0: "1100"}, 1),  # 2/3, 2/3 and 1/3: as it was trained where two tie
        ("1110", {1: "0001", 0.5: "1101"}, 0.5),  # keeps more, learnt as much
        ("1100", {1: "1110", 0.5: "1101"}, 1),
        ("1100", {0: "1111", 0.5: "1111", 1: "1110"}, 0.5),  # of two as good the nearer to the trained
        ("0000", {1: "0000", 0.5: "0001"}, 0.5),  # nothing learnt, nothing to keep
        ("1111", {1: "1011", 0.5: "1111"}, 0.5),  # nothing to learn
        ("0000", {1: "0000", 0.5: "0000"}, 1),
        ("1100", {1: "110-", 0.5: "1101"}, 1),  # an item that one has no grade of counts for none
    ],
)
def test_the_scale_with_the_best_score_is_chosen(current: str, by_a: dict[float, str], chosen: float) -> None:
    for order in itertools.permutations(by_a.items()):
        made = choose_lines(1, right(current), [(f"x{a:g}", a, right(items)) for a, items in order], False)
        assert made.chosen.a == chosen and [c.a for c in made.candidates] == sorted(by_a, reverse=True)


def test_the_score_is_the_papers() -> None:
    made = choose_lines(1, right("11110000"), [("t", 1.0, right("11001100")), ("s", 0.5, right("11101000"))], False)
    trained, scaled = made.candidates
    assert trained.score == pytest.approx((2 * 2 / 2 + 2 / 4) / 3) and scaled.score == pytest.approx(
        (2 / 2 + 3 / 4) / 3
    )
    assert (trained.missing.correct, trained.missing.n, scaled.kept.correct, scaled.kept.n) == (2, 4, 3, 4)
    assert trained.right.correct == 4 and trained.chosen


def test_a_greedy_soup_leaves_out_what_harms_and_takes_what_does_not() -> None:
    value = {"good": 6, "as good": 6, "harmful": 0, "better": 10}

    def score(members: tuple[str, ...]) -> Fraction:
        return Fraction(sum(value[m] for m in members), len(members))

    tried = greedy_soup(["good", "harmful", "as good", "better"], score)
    assert [t.accepted for t in tried] == [False, True, True]
    assert [t.members for t in tried] == [(0, 1), (0, 2), (0, 2, 3)]
    assert tried[-1].score == Fraction(22, 3) and greedy_soup(["good"], score) == []


@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=12), seed=st.integers(0, 5))
def test_halves_have_no_item_and_no_group_in_common_and_leave_none_out(sizes: list[int], seed: int) -> None:
    items = [
        Example.make(question=f"{g} {i}", gold="1", grader="exact", source="t", skills=("s",), group=f"g{g}")
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    first, second = choice_halves(items, seed)
    assert first | second == {e.id for e in items} and not first & second and first and second
    assert not {e.group for e in items if e.id in first} & {e.group for e in items if e.id in second}
    assert abs(len(first) - len(second)) <= max(sizes)
    assert choice_halves(reversed(items), seed) == (first, second)


def test_one_group_cannot_be_halved() -> None:
    item = Example.make(question="q", gold="1", grader="exact", source="t", skills=("s",))
    with pytest.raises(UserError, match=r"probe items of two groups .* data\.splits\.probe"):
        choice_halves([item], 0)


def test_answers_that_choosing_takes() -> None:
    assert merging_answers(4, False, 3, 10) == 40 and merging_answers(0, True, 3, 10) == 10 + 20
    assert merging_answers(4, True, 3, 10) == 40 + 20 and merging_answers(0, False, 3, 10) == 0


@pytest.mark.parametrize("lines", ["[0.5, 0.25]", "[1, 1.5]", "[1, 0.5, 0.5]", "[1, -0.1]"])
def test_scales_without_1_or_out_of_range_are_refused(lines: str) -> None:
    with pytest.raises(ConfigError, match=r"`training\.lines`: expected different numbers from 0 to 1 with 1"):
        load_config(QUICKSTART, [f"training.lines={lines}"])
    assert load_config(QUICKSTART, ["training.lines=[0.5, 1]"]).training.lines == (0.5, 1.0)


def test_files_of_an_adapter_say_whether_it_was_merged() -> None:
    assert AdapterFiles("x", None).merged is False
