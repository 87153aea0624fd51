"""The ledger's arithmetic: limits hold whatever the order of reservations, replies, errors and kills."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.ledger import Amount, Ledger, Purpose, cost_nano, upper_bound
from curriculum.errors import BudgetReached, RunDirError
from curriculum.teacher_config import Budget, Prices, TeacherConfig
from curriculum.teacher_records import Reply

PRICES = Prices(input=1.5, cached_input=0.5, output=6.0)


def reply(prompt: int | None = 10, completion: int | None = 5, cached: int = 0) -> Reply:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}
    return Reply.model_validate({"text": "x", "finish_reason": "stop", "prompt_hash": "h", **usage})


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["intend", "reply", "no usage", "error", "billed", "kill"]),
        st.integers(0, 400),
        st.integers(0, 300),
    ),
    max_size=40,
)


@given(STEPS, st.integers(0, 15), st.integers(0, 3000))
def test_no_order_of_events_breaks_a_limit_or_loses_spend(
    steps: list[tuple[str, int, int]], requests: int, tokens: int
) -> None:
    budget = Budget(requests=requests, tokens=tokens, money=0.004)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "calls.jsonl"
        ledger = Ledger(path, budget)
        waiting: list[tuple[int, int]] = []
        for place, (what, size, used) in enumerate(steps):
            if what == "intend":
                need = Amount(1, size, cost_nano(PRICES, size, 0, 0))
                try:
                    waiting.append((ledger.intend(str(place), Purpose("solve"), need), size))
                except BudgetReached:
                    assert not ledger.fits(need)
            elif what == "kill":
                ledger, waiting = Ledger(path, budget), []
            elif waiting:
                number, reserved = waiting.pop(used % len(waiting))
                if what == "reply":
                    ledger.commit(number, reply(min(used, reserved), 0), PRICES)
                elif what == "no usage":
                    ledger.commit(number, reply(None, None), PRICES)
                else:
                    ledger.fail(number, "broke", billed=what == "billed")
            spent = ledger.spent
            assert spent.requests <= requests and spent.tokens <= tokens and spent.nano <= 4_000_000
            assert min(spent) >= 0
        again = Ledger(path, budget, read_only=True)
        assert again.spent == ledger.spent
        rows = again.spend()
        assert sum(r.requests for r in rows) == again.spent.requests
        assert sum(r.charged_tokens for r in rows) == again.spent.tokens
        assert sum(r.requests - r.replies - r.errors - r.orphans for r in rows) == 0


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_cost_never_falls_with_more_tokens_and_cached_ones_cost_less(prompt: int, cached: int, completion: int) -> None:
    cost = cost_nano(PRICES, prompt, cached, completion)
    assert cost <= cost_nano(PRICES, prompt, 0, completion) <= cost_nano(PRICES, prompt + 1, 0, completion + 1)
    assert cost_nano(None, prompt, cached, completion) == 0


def test_a_price_of_one_token() -> None:
    assert cost_nano(PRICES, 1_000_000, 400_000, 1_000_000) == 7_100_000_000
    assert cost_nano(PRICES, 1, 0, 0) == 1500


@given(st.text(max_size=300))
def test_the_upper_bound_has_a_token_for_every_byte(text: str) -> None:
    endpoint = TeacherConfig(kind="llm", model="m", base_url="https://h/v1", max_tokens=7).endpoint("label")
    bound = upper_bound(endpoint, {"messages": [{"role": "user", "content": text}]})
    assert bound.tokens >= len(text.encode("utf-8", "surrogatepass")) + 7 and bound.requests == 1


def test_a_torn_last_line_is_cut_and_a_foreign_one_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    ledger = Ledger(path, Budget())
    number = ledger.intend("k", Purpose("label", 1, "s"), Amount(1, 100, 0))
    ledger.commit(number, reply(), None)
    with path.open("a") as file:
        file.write('{"event": "int')
    assert Ledger(path, Budget(), read_only=True).find("k") == reply()
    assert path.read_text().endswith("int")
    assert Ledger(path, Budget()).find("k") == reply()
    assert path.read_text().endswith("}\n")
    first, second = path.read_text().splitlines()
    path.write_text(f"{second}\n{first}\n")
    with pytest.raises(RunDirError, match="ends without having begun"):
        Ledger(path, Budget())


def test_a_fault_is_counted_once_however_often_it_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.jsonl", Budget())
    for _ in range(3):
        ledger.note_fault("k", "label", "no_json")
    again = Ledger(tmp_path / "calls.jsonl", Budget())
    again.note_fault("k", "label", "no_json")
    assert [(f.role, f.kind, f.replies) for f in again.faults()] == [("label", "no_json", 1)]
