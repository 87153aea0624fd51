"""A round's new pool rows in words of their own, as `plan.bindings` says, and what was counted of them."""

from collections.abc import Mapping, Sequence

from agents.loop import Loop
from curriculum.bindings import bind_row, bind_rows, bindings_report, label_sets
from curriculum.errors import UserError
from curriculum.method_records import BindingsReport
from curriculum.round_records import RoundPlan, TrainingRow


def bound_rows(loop: Loop, plan: RoundPlan, rows: list[TrainingRow]) -> list[TrainingRow]:
    """A round's training set with a share of its new pool rows bound; as it is where the config wants none.

    Raises:
        UserError: new pool rows are wanted bound, and none of them has anything to bind.
    """
    share, new = loop.config.plan.bindings, [row for row in rows if row.origin == "pool"]
    if not share or not new:
        return rows
    sets = _sets(loop)
    made = bind_rows(rows, loop.examples, sets, share, plan.seed)
    if made == rows and not any(bind_row(row, loop.examples[row.example_id], sets, plan.seed) for row in new):
        raise UserError(
            f"plan.bindings is {share:g}, but of {len(new)} new pool rows none has operators between numbers, nor an "
            "answer of a few that come again and again, such as yes and no: expected some. Set plan.bindings to 0 in "
            "a fork or a new run"
        )
    return made


def round_bindings(loop: Loop, rows: Sequence[TrainingRow]) -> BindingsReport | None:
    """What became of a round's new pool rows; none where the config wants none bound."""
    share = loop.config.plan.bindings
    return bindings_report(rows, loop.examples, _sets(loop), share) if share else None


def _sets(loop: Loop) -> Mapping[str, tuple[str, ...]]:
    return label_sets((e, loop.labels[e.id].skills) for e in loop.split("pool"))
