"""The plan of a round as YAML files: `plan.proposed.yaml`, never changed, and `plan.approved.yaml`.

The approved file is a copy that a person may edit; `approved: false` at its top means that the run waits.
What a person wrote is checked as strictly as a config.
"""

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from curriculum.config_yaml import key_lines, parse_yaml
from curriculum.errors import UserError
from curriculum.records import Record
from curriculum.round_records import RoundPlan
from curriculum.rundir import check_version, write_atomic

APPROVED = "plan.approved.yaml"
"""Its name in the folder of the stage `approve`, where a round's plan is read."""
PROPOSED = "plan.proposed.yaml"
"""Its name in the folder of the stage `plan`."""
_HEADER = """\
# The plan of round {round}. Edit what is under `plan`, then set `approved: true`, fill in `by` and `reason`,
# and go on with: tutelage resume RUN
"""


class PlanApproval(Record):
    """A plan with the decision on it."""

    approved: bool
    by: str
    reason: str
    taken_from: str | None = Field(
        default=None,
        description="the run in which it was decided on the same proposed plan; none where it was decided here",
        exclude_if=lambda value: value is None,
    )
    plan: RoundPlan


def write_proposed(path: Path, plan: RoundPlan) -> None:
    """Writes the plan as the controller made it."""
    write_atomic(path, yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100))


def read_proposed(path: Path) -> RoundPlan:
    """Reads a plan that this program wrote."""
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    check_version(path, value)
    return RoundPlan.model_validate(value)


def write_approval(path: Path, approval: PlanApproval) -> None:
    """Writes the approval file, with a note on how to use it."""
    text = yaml.safe_dump(approval.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    write_atomic(path, _HEADER.format(round=approval.plan.round) + text)


def read_approval(path: Path) -> PlanApproval:
    """Reads an approval file that a person may have edited.

    Raises:
        UserError: it is not YAML, not a plan, or of a newer version; every fault is listed.
    """
    try:
        node, value = parse_yaml(path.read_text(encoding="utf-8"))
        check_version(path, value)
        twice = list(key_lines(node, (), {}, set())) if node else []
        faults = [f"  line {line}: `{'.'.join(key)}` is given twice" for key, line in twice]
        made = None
        try:
            made = PlanApproval.model_validate(value)
        except ValidationError as error:
            faults += [f"  `{'.'.join(map(str, e['loc'])) or 'file'}`: {e['msg']}" for e in error.errors()]
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected YAML as written by the run, got: {error}") from None
    if made is None or faults:
        raise UserError(f"{path}: the plan cannot be used; mend it and resume:\n" + "\n".join(faults))
    return made
