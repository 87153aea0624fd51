"""The report in a real browser: hostile text runs nothing and asks for nothing; readers of every kind can use it.

Needs Playwright and axe-core (`pip install 'tutelage[browser]'`) and the system's Chromium; skipped, and why said,
where one is missing.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import tutelage, write_config
from test_bench_budgets import BINS
from test_bench_budgets import report as bench_of
from test_report import TIMINGS
from whole_report import KEY, WORST, hostile, whole_report

from agents.proposal import read_proposal
from agents.run_index import read_index
from curriculum import bench_views, proposal_views, run_index_views
from curriculum.approval import PlanDecision
from curriculum.report import RunReport
from curriculum.report_html import render_html
from curriculum.report_words import visible
from curriculum.rundir import RunDir

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install 'tutelage[browser]'")
axe = pytest.importorskip("axe_playwright_python.base", reason="no axe-core: pip install 'tutelage[browser]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the PATH, and the variable CHROMIUM names none"
)
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
FIXED_WORDS = {
    *("accepted", "asked once", "base", "baseline", "correct", "failures", "finished", "fixed", "learning", "lost"),
    *("mastered", "merged", "missing", "open", "pool", "replay", "rule", "same", "set", "slipped", "solve", "train"),
    *("written", "wrong"),
}
"""Texts that come from a list of ours and can be nothing else."""
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'], resultTypes: ['violations']}"
WATCH = """
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + e.blockedURI));
  for (const name of ["alert", "open", "fetch"]) window[name] = () => violations.push(name);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(whole_report(), tmp_path_factory.mktemp("page"))


def written(report: RunReport, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render_html(report, TIMINGS))
    return path


class Watched:
    """A page, and what it did that a report must not do."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP} | context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.faults: list[str] = []
        self.page.add_init_script(WATCH)
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on("request", lambda request: self.faults.append(request.url) if request.url != self.url else None)
        self.url = path.as_uri()
        self.page.goto(self.url)

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *failed: object) -> None:
        violations = [] if failed[0] else self.page.evaluate("window.violations || []")
        self.context.close()
        if not failed[0]:
            assert (self.faults, violations) == ([], [])


def shown(page: Any, rows: str) -> list[str]:
    """The first line of every row that is seen."""
    texts: list[str] = page.locator(rows).evaluate_all(
        "all => all.filter(e => e.getClientRects().length).map(e => e.firstElementChild.textContent.trim())"
    )
    return texts


def test_hostile_text_in_every_field_runs_nothing_and_asks_for_nothing(browser: Any, tmp_path: Path) -> None:
    report = hostile(whole_report())
    assert {text for text in _texts(report.model_dump(mode="json")) if "onerror=alert" not in text} <= FIXED_WORDS
    with Watched(browser, written(report, tmp_path)) as page:
        assert page.evaluate("document.scripts.length") == 1
        assert page.locator("img, iframe, object, embed, base, link, video, audio, form").count() == 0
        names = page.locator("#skill-table tbody th").all_text_contents()
        assert any(visible(WORST)[:150] in name for name in names)
        page.locator("#skill-table thead button").first.click()
        page.fill("#skill-text", "onerror=alert(2)")
        assert shown(page, "#skill-table tbody tr")
        page.fill("#skill-text", WORST.replace("\ud800", "").replace("\x00", "")[:200])
        page.fill("#failure-text", "<script>")
        page.select_option("#failure-skill", index=1)
        page.locator(".failure:not([hidden]) summary").first.click()
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("getComputedStyle(document.querySelector('th')).unicodeBidi") == "isolate"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a plan that waits, and the index of its folder, with hostile text in every field."""
    folder = tmp_path_factory.mktemp("pages")
    done = tutelage("run", write_config(folder), "--name", "run", "--approve")
    assert done.code == 0, done.err
    decision = PlanDecision(by=WORST, reason=WORST, changed=(WORST,), taken_from=WORST)
    plan = proposal_views.render_html(hostile(read_proposal(RunDir(folder / "run"), 1)), decision, WORST)
    found = hostile(read_index(folder))
    named = tuple(run.model_copy(update={"name": KEY}) for run in found.runs)  # no folder can have a lone surrogate
    index = run_index_views.render_html(found.model_copy(update={"runs": named}))
    for name, text in (("plan", plan), ("index", index)):
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in ("plan", "index")}


@pytest.fixture(scope="module")
def bench_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a bench of difficulties at three budgets, and of one of other strategies, both with hostile text."""
    folder = tmp_path_factory.mktemp("benches")
    made = {
        "difficulty": bench_of(BINS, (0.25, 0.5, 1.0), 2),
        "others": bench_of(("uniform", "uniform_again", "stat_sel", "complexity_random"), (0.5, 1.0), 1),
    }
    for name, report in made.items():
        (folder / f"{name}.html").write_text(bench_views.render_html(hostile(report)))
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["difficulty", "others"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_bench_runs_nothing_and_everybody_can_read_it(
    browser: Any, bench_pages: dict[str, Path], name: str, viewport: dict[str, int], scheme: str
) -> None:
    with Watched(browser, bench_pages[name], viewport=viewport, color_scheme=scheme) as page:
        assert page.locator("script, img, iframe, object, embed, base, link, video, audio, form").count() == 0
        assert "onerror=alert(2)" in page.inner_text("body")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        heights = page.locator("svg[role=img] text").evaluate_all(
            "all => all.map(t => t.getBoundingClientRect().height)"
        )
        assert min(heights) >= 13, "the plots' text is large enough to read"
        page.evaluate(axe.AXE_FILE_PATH.read_text())
        found = page.evaluate(f"axe.run({RULES})")
        assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []


@pytest.mark.parametrize("name", ["plan", "index"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_the_other_pages_run_nothing_either(
    browser: Any, pages: dict[str, Path], name: str, viewport: dict[str, int]
) -> None:
    with Watched(browser, pages[name], viewport=viewport) as page:
        assert page.locator("script, img, iframe, object, embed, base, link, video, audio, form").count() == 0
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert "onerror=alert(2)" in page.inner_text("body")
        page.evaluate(axe.AXE_FILE_PATH.read_text())
        found = page.evaluate(f"axe.run({RULES})")
        assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def test_no_other_script_can_run(browser: Any, tmp_path: Path) -> None:
    path = written(whole_report(), tmp_path)
    injected = (
        "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'><a id=j href='javascript:ran=3'>j</a>"
    )
    path.write_text(path.read_text().replace("</main>", f"{injected}</main>"))
    watched = Watched(browser, path)
    watched.page.click("#j")
    assert watched.page.evaluate("window.ran") is None
    assert watched.page.evaluate("violations.length") >= 2
    assert watched.page.locator("#skill-table thead button").count() > 3, "ours runs"
    watched.context.close()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_against_wcag_2_aa(browser: Any, whole: Path, scheme: str, viewport: dict[str, int]) -> None:
    with Watched(browser, whole, viewport=viewport, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.wait_for_function("[...document.querySelectorAll('details')].every(d => d.open)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        page.evaluate(axe.AXE_FILE_PATH.read_text())
        found = page.evaluate(f"axe.run({RULES})")
        assert len(found["passes"]) > 15
        assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []


def test_skills_are_sorted_and_filtered_by_keyboard(browser: Any, whole: Path) -> None:
    with Watched(browser, whole) as page:
        rows = "#skill-table tbody tr"
        assert shown(page, rows) == ["add", "gcd"]
        heading = page.locator("#skill-table thead th").first
        for direction, order in (("ascending", ["add", "gcd"]), ("descending", ["gcd", "add"])):
            heading.locator("button").focus()
            page.keyboard.press("Enter")
            assert heading.get_attribute("aria-sort") == direction
            assert shown(page, rows) == order
        change = page.locator("#skill-table thead th").nth(2)
        change.locator("button").click()
        assert heading.get_attribute("aria-sort") is None and change.get_attribute("aria-sort") == "ascending"
        page.fill("#skill-text", "GC")
        assert shown(page, rows) == ["gcd"]
        assert page.inner_text("#skill-count") == "1 of 2 rows"
        page.fill("#skill-text", "")
        page.select_option("#skill-state", "missing")
        assert shown(page, rows) == ["add"]
        page.select_option("#skill-state", "")
        page.check("#level-2")
        assert [row.split()[-1] for row in shown(page, rows)] == ["2", "2"]


def test_failures_are_paged_and_filtered(browser: Any, whole: Path) -> None:
    with Watched(browser, whole) as page:
        rows = ".failure"
        assert len(shown(page, rows)) == 20 and page.inner_text("#failure-count") == "1 to 20 of 30"
        page.click("#failure-on")
        assert len(shown(page, rows)) == 10 and page.is_disabled("#failure-on")
        page.select_option("#failure-outcome", "lost")
        assert page.inner_text("#failure-count") == "1 to 7 of 7", "the first page of what is left"
        page.fill("#failure-text", "question 6?")
        assert len(shown(page, rows)) == 1
        page.fill("#failure-text", "no such text")
        assert page.inner_text("#failure-count") == "none"


def test_without_script_everything_is_there(browser: Any, whole: Path) -> None:
    with browser.new_context(java_script_enabled=False, viewport=DESKTOP) as context:
        page = context.new_page()
        page.goto(whole.as_uri())
        assert page.locator(".failure:visible").count() == 30
        assert page.locator("#skill-table tbody tr:visible").count() == 2
        assert not page.is_visible("#skill-text") and page.locator("thead button").count() == 0
        page.check("#level-2")
        page.check("#on-probe")
        assert page.locator("#skill-table tbody tr:visible").count() == 2
        assert page.locator("#skill-table td.gate:visible").count() == 0


def test_on_paper_folded_parts_are_open_and_controls_are_gone(browser: Any, whole: Path) -> None:
    with Watched(browser, whole, color_scheme="dark") as page:
        page.select_option("#failure-outcome", "fixed")
        page.select_option("#failure-outcome", "")
        page.click("#failure-on")
        page.emulate_media(media="print", color_scheme="dark")
        assert not page.is_visible("nav") and not page.is_visible("#skill-text")
        assert page.is_visible("#cost details table"), "a folded table"
        assert len(shown(page, ".failure")) == 10
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
        assert page.evaluate("document.querySelectorAll('#skill-table thead th > button').length") == 7
