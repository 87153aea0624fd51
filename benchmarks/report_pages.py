"""How long the report of a large run takes to build and to open, and how large its files are.

    python benchmarks/report_pages.py [--run runs/quickstart-1] [--repeats 5]

Without --run, a run of 10 rounds, 60 skills and 20,000 graded answers a round is made first (about three minutes;
`big_run.py`). Read from the run: the seconds of the stage `report`, which makes a round's report from its records.
Timed, the median of the repeats, with the library's own functions: `report.json`, Markdown and HTML of the run. Where
Playwright is installed (`pip install playwright`) and there is a Chromium, the page is opened from disk, without
network, in a window of 1280 × 800: first paint and first contentful paint by the browser's own entries, the load event,
the elements, and the time from a change of the first search field to the next frame painted. Files are written to a
folder of its own; a run that is given is read, never changed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from big_run import make_run
from machine import describe

from agents.reporting import gather
from agents.session import open_run
from curriculum.config import Config
from curriculum.report import read_timings
from curriculum.report_html import render_html
from curriculum.report_text import render_markdown
from curriculum.rundir import RunDir, write_record

CHROMIUM = "/usr/bin/chromium"
SEARCH = "input[type=search]"
PAINTED = """() => new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve, 0)))"""
FILTERED = """([field, text]) => new Promise(resolve => {
  const rows = () => [...document.querySelectorAll('tbody tr')].filter(row => row.offsetParent !== null).length;
  const input = document.querySelector(field);
  const before = rows();
  const since = performance.now();
  input.value = text;
  input.dispatchEvent(new Event('input', {bubbles: true}));
  input.dispatchEvent(new Event('change', {bubbles: true}));
  requestAnimationFrame(() => setTimeout(() => resolve([performance.now() - since, before, rows()]), 0));
})"""


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of a piece of work."""
    taken = []
    for _ in range(repeats):
        since = time.perf_counter()
        work()
        taken.append(time.perf_counter() - since)
    return median(taken)


def time_building(run: RunDir, config: Config, folder: Path, repeats: int) -> None:
    """Prints what building takes, and writes the pages into `folder`."""
    made, timings = gather(run, config), read_timings(run.path)
    stages = [part.seconds for part in timings.stages if part.stage == "report"]
    answers = [sum(1 for _ in path.open("rb")) for path in run.path.glob("answers/*/*/grades.jsonl")]
    print(
        f"{len(made.rounds)} rounds with round 0, {sum(answers):,} graded answers in all: the stage `report` took "
        f"{median(stages):.1f} s a round, at most {max(stages):.1f} s"
    )
    print(f"report gathered in {seconds(lambda: gather(run, config), repeats):.2f} s")
    works: dict[str, Callable[[], str]] = {
        "report.md": lambda: render_markdown(made, timings),
        "report.html": lambda: render_html(made, timings),
    }
    write_record(folder / "report.json", made)
    took = {"report.json": seconds(lambda: write_record(folder / "report.json", made), repeats)}
    for name, work in works.items():
        took[name] = seconds(work, repeats)
        (folder / name).write_text(work(), encoding="utf-8")
    for name, taken in took.items():
        print(f"{name}: {taken:.2f} s, {(folder / name).stat().st_size / 1e6:.2f} MB")


def time_opening(page_file: Path, repeats: int) -> None:
    """Prints what a browser takes to show the page and to filter it."""
    browser_path = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium") or shutil.which("google-chrome")
    if find_spec("playwright") is None or browser_path is None:
        print("opening: not measured; it needs Playwright (pip install playwright) and a Chromium")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        paints, contents, loads, elements, filters, rows = [], [], [], 0, [], ""
        for _ in range(repeats):
            context = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
            page = context.new_page()
            page.goto(page_file.absolute().as_uri(), wait_until="load")
            page.evaluate(PAINTED)
            times = page.evaluate(
                "() => [...performance.getEntriesByType('paint').map(e => [e.name, e.startTime]), "
                "['load', performance.getEntriesByType('navigation')[0].loadEventEnd]]"
            )
            by_name = dict(times)
            paints.append(by_name["first-paint"])
            contents.append(by_name["first-contentful-paint"])
            loads.append(by_name["load"])
            elements = page.evaluate("() => document.getElementsByTagName('*').length")
            if page.locator(SEARCH).count():
                text = page.evaluate("() => document.querySelector('tbody th, tbody td')?.textContent.trim() ?? ''")
                taken, before, after = page.evaluate(FILTERED, [SEARCH, text])
                filters.append(taken)
                rows = f"{before} rows, {after} stay"
            context.close()
        version = browser.version
        browser.close()
    print(
        f"Chromium {version}: first paint {median(paints):.0f} ms (first contentful {median(contents):.0f}), loaded "
        f"{median(loads):.0f} ms, {elements:,} elements"
    )
    print(f"filtered in {median(filters):.0f} ms ({rows})" if filters else "no filter on this page")


def main() -> None:
    """Prints the machine and every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run; the large one is made otherwise")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(describe("jinja2", "pydantic"))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path = args.run
        if path is None:
            since = time.perf_counter()
            path = make_run(folder, 10, 60, 20_000).path
            print(f"the run was made in {time.perf_counter() - since:.0f} s", file=sys.stderr)
        run, config = open_run(path, only_read=True)
        time_building(run, config, folder, args.repeats)
        time_opening(folder / "report.html", args.repeats)


if __name__ == "__main__":
    main()
