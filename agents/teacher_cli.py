"""The commands that measure teachers: what each model can be held to, and how far two of them agree."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agents.exits import ConfigPath, Json, Set, budget_errors, user_errors

teacher_app = typer.Typer(help="Measure the teachers of configs.", no_args_is_help=True)


@teacher_app.command("check")
def teacher_check(
    config: ConfigPath,
    items: Annotated[int, typer.Option(min=1, max=100, help="Questions put to each role, each twice")] = 3,
    name: Annotated[str | None, typer.Option(help="Folder in runs_dir; teacher-check- and the config's name")] = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Try what each role's model really does: forced JSON, log-probabilities, seed, latency, price, repeatability."""
    with user_errors(json_), budget_errors(json_):
        from rich.console import Console

        from agents.measure_views import print_teacher_check
        from agents.progress import ProgressPrinter
        from agents.session import measuring_folder
        from agents.teacher_check import check_teacher, require_llm
        from curriculum.config import load_config

        loaded = load_config(config, set_ or ())
        require_llm(loaded, "check a teacher")
        folder = measuring_folder(loaded, name or f"teacher-check-{config.stem}")
        made = check_teacher(loaded, folder, items, ProgressPrinter())
        print_teacher_check(made, Console(highlight=False))
        if json_:
            sys.stdout.write(json.dumps({"status": "ok", **made.model_dump(mode="json")}) + "\n")


@teacher_app.command("compare")
def teacher_compare(
    config: ConfigPath,
    with_: Annotated[Path | None, typer.Option("--with", metavar="OTHER", help="Config of the other teacher")] = None,
    with_set: Annotated[
        list[str] | None, typer.Option("--with-set", metavar="KEY=VALUE", help="Override a key of OTHER: a.b=c")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run whose base's probe failures both diagnose")] = None,
    labels: Annotated[Path | None, typer.Option(help="Recorded labels: JSON with question2skill")] = None,
    items: Annotated[int, typer.Option(min=1, help="Questions that are labelled, at most")] = 60,
    name: Annotated[str | None, typer.Option(help="Folder in runs_dir; teacher-compare- and the config's name")] = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Have two teachers label and diagnose the same sample, or one label what has recorded labels."""
    with user_errors(json_), budget_errors(json_):
        from rich.console import Console

        from agents.compare_sample import choose_sample
        from agents.measure_views import print_comparison
        from agents.progress import ProgressPrinter
        from agents.session import measuring_folder
        from agents.teacher_compare import compare_teachers
        from curriculum.config import load_config

        loaded = load_config(config, set_ or ())
        configs = [loaded]
        if with_ is not None:
            other = load_config(with_, with_set or ())
            configs.append(loaded.model_copy(update={"teacher": other.teacher}))
        progress = ProgressPrinter()
        sample = choose_sample(loaded, len(configs), run, labels, items, progress)
        folder = measuring_folder(loaded, name or f"teacher-compare-{config.stem}")
        made = compare_teachers(configs, sample, folder, progress)
        print_comparison(made, Console(highlight=False))
        if json_:
            sys.stdout.write(json.dumps({"status": "ok", **made.model_dump(mode="json")}) + "\n")
