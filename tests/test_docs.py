"""The guide to one's own data works as it is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import tutelage

from curriculum.config import load_config

GUIDE = (Path(__file__).parents[1] / "docs" / "own-data.md").read_text()


def block(language: str, begins: str) -> str:
    """The guide's code block that begins so."""
    (found,) = re.findall(rf"```{language}\n({re.escape(begins)}.*?)```", GUIDE, re.DOTALL)
    return str(found)


def test_every_config_of_the_guide_loads(tmp_path: Path) -> None:
    for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL):
        path = tmp_path / "config.yaml"
        missing = (
            ""
            if "plan:" in text
            else "  splits: {probe: 1, gate: 1, final: 1}\nplan: {rows_per_round: 1, write_share: 0}\n"
        )
        path.write_text(text + missing)
        assert load_config(path).data.kind == "file"


@pytest.mark.real
def test_the_guide_leads_from_its_csv_to_a_report(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", block("python", "import csv")], cwd=tmp_path, check=True)
    config = tmp_path / "shop.yaml"
    config.write_text(block("yaml", "rounds:"))
    here = [f"--set=data.path={tmp_path / 'shop.csv'}", f"--set=runs_dir={tmp_path}"]
    done = tutelage("data", "check", config, *here)
    assert done.code == 0, done.err
    real = [line.rstrip() for line in done.out.splitlines()]
    for line in block("console", "$ tutelage data check").splitlines()[1:]:
        assert any(r.startswith(line.removesuffix("…").rstrip()) for r in real), line
    done = tutelage("run", config, "--name=rehearsal", *here, "--set=student.engine=fake", "--set=student.base=fake")
    assert done.code == 0, done.err
    (examples,) = re.findall(r"^examples: .*$", GUIDE, re.MULTILINE)
    assert examples in done.err
    quarantined = (tmp_path / "rehearsal" / "prepare" / "quarantine.jsonl").read_text()
    assert quarantined.startswith(block("console", "$ cat").splitlines()[1].partition("…")[0])
    assert (tmp_path / "rehearsal" / "report.html").exists()
