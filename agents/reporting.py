"""The node `report`, and the pages made from what it and the final test wrote.

A round's report and the final test are stages with canonical files; `report.json` puts them together.
`report.html` and `report.md` are views of it with the times added, made anew whenever something is done.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.control import compared, has_control, pair_folders
from agents.difficult import FOUND, difficult_questions
from agents.evaluation import SERVING, evaluate_probe, evaluate_split, sample_split
from agents.history import ALLOCATION, adapter_before, gate_decision, read_mastery, read_profile
from agents.ledger import LEDGER, Ledger
from agents.loop import FAILED, REPEATED, Loop, State, stage_inputs
from agents.methods import methods_report
from agents.ranking import RANK, ranking_of
from agents.recorded_usage import FORECAST, role_timings
from agents.run_evidence import reproduction, run_adapters, run_failures, run_rows, run_work
from agents.tracking import track
from curriculum.agreement import Repeatability
from curriculum.approval import plan_decision
from curriculum.catalogue_file import CATALOGUE, catalogue_words, read_catalogue
from curriculum.config import Config
from curriculum.data_config import FileSource, GeneratorData
from curriculum.difficult import DifficultFound
from curriculum.errors import RunDirError
from curriculum.gate import stopped
from curriculum.judging import JudgeReport, judge_report
from curriculum.plan_file import APPROVED, PROPOSED, read_approval, read_proposed
from curriculum.records import BASE, Diagnosis, Grade, content_id
from curriculum.report import FinalReport, RoundReport, RunReport, Timings, read_timings
from curriculum.report_build import RoundRecords, round_report
from curriculum.report_html import render_html
from curriculum.report_probe import profile_set_note
from curriculum.report_text import render_markdown, render_terminal
from curriculum.report_words import cut_words, decision_words, student_notes
from curriculum.round_records import Adapter, Allocation, DroppedRow, TrainingRow
from curriculum.rundir import (
    DONE,
    RunDir,
    finished_rounds,
    read_json,
    read_record,
    read_records,
    write_atomic,
    write_record,
)
from curriculum.serving_records import Serving
from curriculum.teacher_records import FailedCount, TeacherFailure, TeacherForecast, TeacherReport
from student.interface import AdapterFiles


def report(loop: Loop, state: State) -> State:
    """Puts a round together, and moves on to the next."""
    round_ = state["round"]
    stages = [s.parent for s in sorted((loop.run.path / f"round_{round_:02d}").glob(f"*/{DONE}"))]
    stages = [s for s in stages if s.name != "report"]
    if round_ and has_control(loop, round_):
        stages += pair_folders(loop, round_, "gate")
    probe = loop.adapter_files(*adapter_before(loop, round_))
    on_probe, difficult = evaluate_probe(loop, probe, round_), difficult_questions(loop, probe, round_)
    drawn = [sample_split(loop, adapter, "probe").folder for adapter in _drawn_by(loop, probe)]
    inputs = stage_inputs(loop, loop.run.stage_path("label"), on_probe.folder, *difficult.folders, *drawn, *stages)

    def work(folder: Path) -> Mapping[str, Any]:
        made = round_report(_round_records(loop, state), loop.profiled, loop.labels)
        write_record(folder / "report.json", made)
        return {"round": round_ + 1}

    folder = loop.run.round_stage(round_, "report")
    done_before = (folder / DONE).exists()
    update = loop.stage(folder, inputs, work)
    if not done_before:
        made = read_record(folder / "report.json", RoundReport)
        loop.say(f"round {round_}: {decision_words(made)}")
        if round_ == 0 and (cut := cut_words(made.verdicts_before, loop.config.student.max_new_tokens)):
            loop.say(f"warning: {cut}")
        write_pages(loop.run, loop.config)
        track(loop.run, loop.config, loop.say)
    loop.check_stop()
    return update


def _drawn_by(loop: Loop, current: AdapterFiles) -> list[AdapterFiles]:
    """The base and the adapter whose drawn answers are compared; none where nothing is drawn, or it is the base."""
    return [loop.adapter_files(BASE, 0), current] if loop.config.student.signals and current.name != BASE else []


def _round_records(loop: Loop, state: State) -> RoundRecords:
    round_ = state["round"]
    current = loop.adapter_files(*adapter_before(loop, round_))
    before = evaluate_split(loop, current, "gate")
    probe = evaluate_probe(loop, current, round_)

    def folder(stage: str) -> Path:
        return loop.run.round_stage(round_, stage)

    repeated, found = folder("diagnose") / REPEATED, folder("diagnose") / FOUND
    records = RoundRecords(
        decision=stopped(round_, current.name, before.grades, loop.labels, "the plan was to stop"),
        grades_before=before.grades,
        profile=read_profile(loop, round_),
        mastery=read_mastery(loop, round_),
        probe_answers=probe.answers,
        probe_grades=probe.grades,
        diagnoses=read_records(folder("diagnose") / "diagnoses.jsonl", Diagnosis),
        without_gold=difficult_questions(loop, current, round_).ungraded,
        difficult=read_record(found, DifficultFound) if found.exists() else None,
        repeated=read_record(repeated, Repeatability) if repeated.exists() else None,
    )
    if drawn := [sample_split(loop, adapter, "probe").signals for adapter in _drawn_by(loop, current)]:
        records = records._replace(drawn_of_base=drawn[0], drawn=drawn[1])
    if round_ == 0:
        return records._replace(decision=gate_decision(loop, 0))
    proposed, approval = read_proposed(folder("plan") / PROPOSED), read_approval(folder("approve") / APPROVED)
    plan = approval.plan
    records = records._replace(approval=plan_decision(proposed, approval))
    rules = folder("plan") / ALLOCATION
    if rules.exists():
        records = records._replace(allocation=read_record(rules, Allocation))
    if plan.action == "stop":
        reason = plan.stop_reason or "the approved plan was to stop"
        return records._replace(plan=plan, decision=stopped(round_, current.name, before.grades, loop.labels, reason))
    decision = gate_decision(loop, round_)
    rows = read_records(folder("build") / "training_set.jsonl", TrainingRow)
    curves = read_json(folder("train") / "losses.json")
    return records._replace(
        decision=decision,
        grades_after=evaluate_split(loop, loop.adapter_files(state["candidate"], round_), "gate").grades,
        plan=plan,
        rows=rows,
        ranking=ranking_of(folder(RANK), rows, round_),
        dropped=[r for stage in ("build", "train") for r in read_records(folder(stage) / "dropped.jsonl", DroppedRow)],
        adapter=read_record(folder("train") / "adapter.json", Adapter),
        losses=curves["losses"],
        phase_steps=curves.get("phase_steps", ()),
        gradient_norms=curves.get("gradient_norms", ()),
        max_grad_norm=loop.config.training.max_grad_norm,
        methods=methods_report(loop, round_),
        control=compared(loop, round_, "gate") if has_control(loop, round_) else None,
    )


def write_pages(run: RunDir, config: Config) -> RunReport:
    """Puts `report.json` together and makes the pages of it anew; returns the report.

    Raises:
        RunDirError: the run has no finished round yet.
    """
    made = gather(run, config)
    timings = _timings(run)
    write_record(run.path / "report.json", made)
    write_atomic(run.path / "report.md", render_markdown(made, timings))
    write_atomic(run.path / "report.html", render_html(made, timings))
    return made


def _timings(run: RunDir) -> Timings:
    return read_timings(run.path).model_copy(update={"roles": role_timings(run.path)})


def gather(run: RunDir, config: Config) -> RunReport:
    """The run's report so far, from the rounds that have one."""
    rounds = [
        read_record(run.round_stage(r, "report") / "report.json", RoundReport) for r in range(finished_rounds(run))
    ]
    if not rounds:
        raise RunDirError(f"{run.path}: no round has finished yet. Go on with: tutelage resume {run.path}")
    facts = read_json(run.path / "run.json")
    final = None
    by_rule = rounds[-1].decision == "stopped"
    if (run.stage_path("final") / DONE).exists() and (by_rule or len(rounds) > config.rounds):
        final = FinalReport.model_validate(read_json(run.stage_path("final") / "final.json")["final"])
    status = "running" if final is None else "stopped" if by_rule else "finished"
    splits = read_json(run.stage_path("prepare") / "splits.json")
    cut = cut_words(final.verdicts.base if final else rounds[0].verdicts_before, config.student.max_new_tokens)
    base_hash = read_json(run.stage_path("prepare") / DONE)["inputs"]["base"]
    return RunReport(
        run=run.path.name,
        status=status,
        stop_reason=rounds[-1].reason if by_rule else None,
        base=config.student.base,
        base_hash=base_hash,
        teacher=config.teacher.called,
        teaching=_teaching(run, config),
        judging=_judging(run, config),
        data=_data_words(config),
        split_sizes=splits["counts"],
        extra_sizes=splits.get("extra", {}),
        retention_sets=tuple(config.retention_sets),
        config_hash=content_id(facts["identity"], 64),  # a config of today has keys that an older run's had not
        tutelage_version=facts["tutelage"],
        git_commit=facts["commit"],
        notes=(*_notes(config), *([cut] if cut else []), *_named(run), *_served(run), *_lineage(facts)),
        final=final,
        rounds=tuple(rounds),
        failed=run_failures(run, rounds),
        taught=run_rows(run, rounds),
        adapters=run_adapters(run, rounds, base_hash),
        work=run_work(run, rounds, config),
        reproduction=reproduction(run, facts, config.rounds),
    )


def _data_words(config: Config) -> str:
    if isinstance(config.data, GeneratorData):
        return f"reasoning-gym: {', '.join(sorted(config.data.tasks))}"
    return f"{config.data.name}, {f'{config.data.format} format' if config.data.format else 'columns by config'}"


def _notes(config: Config) -> tuple[str, ...]:
    offline = (
        "The teacher is offline: no LLM. Skills are those the data declare; written rows are generated, not authored."
    )
    notes = [offline if config.teacher.kind == "offline" else _teacher_note(config)]
    notes += student_notes(config.student)
    if (name := config.profile_set()) is not None:
        notes.append(profile_set_note(name, config.extra[name].profile_from))
    if not isinstance(config.data, GeneratorData) and config.data.format == "svamp":
        notes.append("Worked solutions are templated from the data set's equations; no person or model wrote them.")
    return tuple(notes)


def _named(run: RunDir) -> list[str]:
    """Who approved the skill catalogue, where a person did."""
    path = run.stage_path("catalogue") / CATALOGUE
    words = catalogue_words(read_catalogue(path)) if path.exists() else ""
    return [words] if words else []


def _served(run: RunDir) -> list[str]:
    """Which weights a server answered with, a sentence for each adapter, and how that was made sure."""
    sentences = {}
    for path in sorted(run.stage_path("answers").glob(f"*/*/{SERVING}")):
        made = read_record(path, Serving)
        files = ", ".join(
            f"{name} {sha256[:12]}" for name, sha256 in made.files.items() if name.endswith(".safetensors")
        )
        canary = ""
        if made.canary is not None:
            apart = ", ".join(f"{value:.2g} from {name}" for name, value in made.canary.others.items())
            canary = (
                f" Its log-probabilities are {made.canary.served:.1g} nats a token from the trainer's own, which are "
                f"{apart}."
            )
        what = f"{made.how} weights{f' {files}' if files else ''}"
        sentences[made.adapter] = f"{made.adapter} was answered for by {made.engine} in {made.dtype}: {what}.{canary}"
    return list(sentences.values())


def _teacher_note(config: Config) -> str:
    models = ", ".join(dict.fromkeys(endpoint.model for endpoint in config.endpoints))
    own = config.teacher.labels == "teacher"
    opinions = ["skills", "labels", "diagnoses"] if own else ["diagnoses"]
    opinions += ["plans"] * ("plan" in config.roles) + ["verdicts"] * ("judge" in config.roles)
    return (
        f"The teacher is an LLM ({models}): {', '.join(opinions)} and written rows are its opinion, not measured truth."
    )


def _judging(run: RunDir, config: Config) -> JudgeReport | None:
    """What the judge did over all answers so far, and how far others agree with it."""
    sources = [s for s in config.sources if isinstance(s, FileSource) and s.grader == "judge"]
    if not sources:
        return None
    paths = sorted(run.stage_path("answers").glob("*/*/grades.jsonl"))
    grades = (grade for path in paths for grade in read_records(path, Grade))
    checks = sorted({s.grader_check for s in sources if s.grader_check is not None})
    second = config.teacher.second_judge
    return judge_report(grades, ", ".join(checks) or None, second.model if second else None)


def _teaching(run: RunDir, config: Config) -> TeacherReport | None:
    """What an LLM teacher cost and failed at so far."""
    if config.teacher.kind == "offline":
        return None
    ledger = Ledger(run.path / LEDGER, config.teacher.budget, read_only=True)
    failures = [f for path in sorted(run.path.rglob(FAILED)) for f in read_records(path, TeacherFailure)]
    counts = Counter((f.role, f.kind) for f in failures)
    forecast = run.path / FORECAST
    return TeacherReport(
        models={role: config.teacher.endpoint(role).model for role in config.roles},
        forecast=read_record(forecast, TeacherForecast) if forecast.exists() else None,
        spend=ledger.spend(),
        faults=ledger.faults(),
        failed=tuple(FailedCount(role=role, kind=kind, items=n) for (role, kind), n in sorted(counts.items())),
    )


def _lineage(facts: Mapping[str, Any]) -> list[str]:
    """Where a fork comes from, the oldest ancestor first."""
    sentences = []
    for fork in facts.get("lineage", []):
        changed = ", ".join(f"{key} {was} → {now}" for key, (was, now) in fork["changed"].items()) or "nothing changed"
        sentences.append(
            f"Forked from {fork['run']}, whose rounds 0 to {fork['round']} it shares; from then on: {changed}. Where "
            "the final split was opened before the fork was made, it can have chosen the fork."
        )
    return sentences


def print_report(run: RunDir, made: RunReport, round_: int | None) -> None:
    """Prints the report, or one round of it, and the path of the page."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(render_terminal(made, _timings(run), round_))
    console.print(f"report: {run.path / 'report.html'}", markup=False, soft_wrap=True)
