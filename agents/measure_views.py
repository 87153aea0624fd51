"""What `teacher check` and `teacher compare` print; texts of servers, models and files are escaped."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from curriculum.agreement import Agreement
from curriculum.report_text import add_row, narrow_table, safe_text
from curriculum.report_words import NONE, rate_short
from curriculum.teacher_measures import Finding, Pair, TeacherCheck, TeacherComparison
from curriculum.teacher_records import SpendRow
from curriculum.teacher_words import estimate_words, money_words


def print_teacher_check(check: TeacherCheck, console: Console) -> None:
    """Prints what each model was found to do."""
    for model in check.models:
        console.print(safe_text(f"{model.model} at {model.base_url}", "bold"))
        table = narrow_table("", ["asked for", "honoured", "what came"])
        for name in ("json_schema", "json_object", "log_probabilities", "seed"):
            finding: Finding = getattr(model, name)
            add_row(table, [name.replace("_", " "), finding.verdict, finding.said])
        table.columns[2].no_wrap = False
        console.print(table)
    heads = ["role", "usable", "only JSON", "seconds, most", "tokens in, out", "price of one", "again"]
    table = narrow_table("Each role's own questions, put twice", heads)
    for role in check.roles:
        counts = [f"{r.correct}/{r.n}" for r in (role.usable, role.bare, role.repeat.same)]
        times = [NONE if s is None else f"{s:.2f}" for s in (role.seconds, role.seconds_most)]
        tokens = [NONE if n is None else f"{n:.0f}" for n in (role.prompt_tokens, role.completion_tokens)]
        price = NONE if role.price is None else f"{role.price:.6f}"
        add_row(table, [role.role, *counts[:2], ", ".join(times), ", ".join(tokens), price, counts[2]])
    console.print(table)
    for role in check.roles:
        for kind, count in role.faults.items():
            console.print(safe_text(f"{role.role}: {count} replies could not be used: {kind}"))
    console.print(safe_text(f"Spent: {_spent(check.spend)}"))
    for advice in check.advice:
        console.print(Text("Advice: ", "bold"), safe_text(advice), sep="")
    console.print(safe_text(f"kept: {check.folder}/check.json"), soft_wrap=True)


def print_comparison(made: TeacherComparison, console: Console) -> None:
    """Prints how far the teachers agree, what they cost, and what would be planned of what they said."""
    table = narrow_table(f"{made.items} items", ["", "labelled", "diagnosed", "failed", "spent"])
    for one in made.labellers:
        failed = ", ".join(f"{n} {kind}" for kind, n in one.failed.items()) or "0"
        spent = "the run's own replies" if one.taken_over else _spent(one.spend)
        add_row(table, [one.name, str(one.labelled), str(one.diagnosed), failed, spent])
    console.print(table)
    for pair in made.pairs:
        _print_agreement(console, "labels", pair, pair.labels)
        if pair.diagnoses is not None:
            _print_agreement(console, "missing skills", pair, pair.diagnoses)
    if made.plan:
        first, second = (one.name for one in made.labellers)
        table = narrow_table("The first round's plan", ["skill", "missing", "share, %", "missing", "share, %"])
        add_row(table, ["", first, "", second, ""])
        for skill in made.plan:
            cells = [(str(n), f"{100 * share:.1f}") for n, share in zip(skill.missing, skill.shares, strict=True)]
            add_row(table, [skill.skill, *cells[0], *cells[1]])
        console.print(table)
    if made.moved is not None:
        console.print(safe_text(f"{100 * made.moved:.1f} % of the round's new rows would go to other skills."))
    for note in made.notes:
        console.print(safe_text(note))
    console.print(safe_text(f"kept: {made.folder}/compare.json"), soft_wrap=True)


def _print_agreement(console: Console, what: str, pair: Pair, found: Agreement) -> None:
    console.print(safe_text(f"{pair.first} (first) and {pair.second} (second): {what} of {found.items} items", "bold"))
    table = narrow_table("", ["skill", "both", "first", "second", "kappa"])
    for skill in found.skills:
        counts = [str(n) for n in (skill.both, skill.first_only, skill.second_only)]
        add_row(table, [skill.skill, *counts, estimate_words(skill.kappa)])
    console.print(table)
    said = f"Shared skills (Jaccard) {estimate_words(found.jaccard)}; exactly the same {rate_short(found.same)} %"
    if found.difficulty is not None and found.same_difficulty is not None:
        same = rate_short(found.same_difficulty)
        said += f"; difficulty: Spearman {estimate_words(found.difficulty)}, the same level {same} %"
    console.print(safe_text(f"{said}."))


def _spent(spend: Sequence[SpendRow]) -> str:
    requests, money = sum(row.requests for row in spend), sum(row.money for row in spend)
    tokens = sum(row.prompt_tokens + row.completion_tokens for row in spend)
    return f"{requests} requests, {tokens} tokens, cost {money_words(money)}"
