"""What base and adapter answered on the final split, as logs that Inspect's viewer shows.

Written with Inspect's own library, which only this needs (`pip install 'tutelage[inspect]'`): `inspect view` reads the
folder. The same run gives the same bytes; a log's time is that at which the run was begun, its duration that of the
answers.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.accepted import Accepted
from curriculum.errors import RunDirError, UserError
from curriculum.records import BASE, Example, Grade, SkillLabel, StudentAnswer, Verdict, content_id
from curriculum.rundir import TIMING, read_json, read_records
from curriculum.statistics import wilson
from student.chat_format import prompt_messages

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore
    from inspect_ai.model import ModelUsage

SCORERS = {"lenient": "verdict", "strict": "strict_verdict"}
"""What each extraction's score is called, and the field of a grade that has it; the first one is the headline."""


def require_inspect() -> None:
    """Makes sure that Inspect's library is there.

    Raises:
        UserError: it is not.
    """
    if find_spec("inspect_ai") is None:
        raise UserError(
            "--inspect: expected Inspect's library, which writes its logs, got none. Install it with: pip install "
            "'tutelage[inspect]', or export without --inspect"
        )


def write_inspect_logs(accepted: Accepted, folder: Path) -> None:
    """Writes a log of the base and one of the adapter into `folder`."""
    from inspect_ai.log import write_eval_log

    folder.mkdir()
    for name, adapter in (("base", BASE), ("adapter", accepted.adapter.name)):
        log = _log(accepted, adapter)
        # The viewer lists no file whose name does not begin with a time.
        at = datetime.fromisoformat(str(log.eval.created)).strftime("%Y-%m-%dT%H-%M-%S+00-00")
        file = folder / f"{at}_{name}_{log.eval.eval_id}.json"
        write_eval_log(log, file.absolute(), format="json")


def _log(accepted: Accepted, adapter: str) -> "EvalLog":
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig

    run, report = accepted.run, accepted.report
    examples = {e.id: e for e in read_records(run.stage_path("prepare") / "examples.jsonl", Example)}
    labels = {r.example_id: r for r in read_records(run.stage_path("label") / "labels.jsonl", SkillLabel)}
    answered = run.stage_path("answers") / adapter / "final"
    answers = read_records(answered / "answers.jsonl", StudentAnswer)
    grades = {g.answer_id: g for g in read_records(answered / "grades.jsonl", Grade)}
    samples = [_sample(accepted, examples[a.example_id], a, grades[a.id], labels[a.example_id]) for a in answers]
    sampling = accepted.config.student.sampling(accepted.config.seed)
    begun = datetime.fromisoformat(_begun(accepted))
    ended = begun + timedelta(seconds=read_json(answered / TIMING)["seconds"])
    id_ = content_id({"run": report.run, "config": report.config_hash, "adapter": adapter}, 22)
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=begun.isoformat(timespec="seconds"),
            eval_id=id_,
            run_id=id_,
            task_id=id_,
            task=f"{report.run}, final split",
            dataset=EvalDataset(
                name=f"final split of {report.run}: {report.data}",
                samples=len(samples),
                sample_ids=[s.id for s in samples],
                shuffled=False,
            ),
            model=f"tutelage/{adapter}",
            model_generate_config=GenerateConfig(
                max_tokens=sampling.max_new_tokens, temperature=sampling.temperature, top_p=sampling.top_p
            ),
            config=EvalConfig(),
            packages={"tutelage": report.tutelage_version},
            metadata={
                "base": accepted.base.words,
                "base_hash": report.base_hash,
                "config_hash": report.config_hash,
                "adapter_files": dict(accepted.adapter.files) if adapter != BASE else {},
            },
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[_score(name, field, list(grades.values())) for name, field in SCORERS.items()],
        ),
        stats=EvalStats(
            started_at=begun.isoformat(timespec="seconds"),
            completed_at=ended.isoformat(timespec="seconds"),
            model_usage={f"tutelage/{adapter}": _usage(answers)},
        ),
        samples=samples,
    )


def _usage(answers: Sequence[StudentAnswer]) -> "ModelUsage":
    from inspect_ai.model import ModelUsage

    read, written = sum(a.prompt_tokens for a in answers), sum(a.completion_tokens for a in answers)
    return ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)


def _begun(accepted: Accepted) -> str:
    path = accepted.run.path / "run.json"
    created = str(read_json(path).get("created"))
    try:
        return datetime.fromisoformat(created).astimezone(UTC).isoformat(timespec="seconds")
    except ValueError:
        raise RunDirError(f"{path}: expected the time of its beginning in `created`, got {created[:40]!r}") from None


def _sample(
    accepted: Accepted, example: Example, answer: StudentAnswer, grade: Grade, label: SkillLabel
) -> "EvalSample":
    from inspect_ai.log import EvalSample
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ModelOutput,
    )
    from inspect_ai.scorer import Score

    kinds: Mapping[str, Any] = {
        "system": ChatMessageSystem,
        "user": ChatMessageUser,
        "assistant": ChatMessageAssistant,
    }
    # Ids of our own: the library would draw them.
    turns = prompt_messages(accepted.prompt.text, example.history, example.question)
    asked = [kinds[m.role](id=f"{answer.id}-{at}", content=m.content) for at, m in enumerate(turns)]
    said = ChatMessageAssistant(id=f"{answer.id}-answer", content=answer.text)
    found = {"lenient": grade.extracted, "strict": grade.strict_extracted}
    verdicts = {name: Verdict(getattr(grade, field)) for name, field in SCORERS.items()}
    return EvalSample(
        id=example.id,
        uuid=answer.id,
        epoch=1,
        input=asked,
        target=example.gold,
        messages=[*asked, said],
        output=ModelOutput(
            model=f"tutelage/{answer.adapter}",
            choices=[
                ChatCompletionChoice(
                    message=said,
                    stop_reason={"stop": "stop", "length": "max_tokens"}.get(answer.finish_reason, "unknown"),
                )
            ],
            completion=answer.text,
            usage=_usage([answer]),
        ),
        model_usage={f"tutelage/{answer.adapter}": _usage([answer])},
        scores={
            name: Score(
                value="C" if verdict is Verdict.CORRECT else "I",
                answer=found[name],
                explanation=f"{verdict.value}{f': {grade.reason}' if grade.reason else ''}",
            )
            for name, verdict in verdicts.items()
            if grade.verdict is not Verdict.FAILED  # our own fault enters no rate
        },
        metadata={
            "skills": list(label.skills),
            "difficulty": label.difficulty,
            "grader": example.grader,
            "source": example.source,
        },
    )


def _score(name: str, field: str, grades: Sequence[Grade]) -> "EvalScore":
    from inspect_ai.log import EvalMetric, EvalScore

    graded = [g for g in grades if g.verdict is not Verdict.FAILED]
    rate = wilson(sum(getattr(g, field) is Verdict.CORRECT for g in graded), len(graded))
    values = {"accuracy": rate.rate, "low95": rate.low, "high95": rate.high}
    return EvalScore(
        name=name,
        scorer=f"tutelage_{name}",
        scored_samples=len(graded),
        unscored_samples=len(grades) - len(graded),
        metrics={key: EvalMetric(name=key, value=value) for key, value in values.items() if value is not None},
    )
