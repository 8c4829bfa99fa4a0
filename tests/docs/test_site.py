"""The documentation is whole: it builds without a warning, and each learner has a page."""

import subprocess
import sys
from pathlib import Path

import pytest

from kshot.learners.registry import LEARNERS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, row in LEARNERS.items():
        page = (tmp_path / "learners" / f"{name}.html").read_text(encoding="utf-8")
        assert "Results" in page and (row.paper is None or row.paper.key in page)
    home = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="idea.html"' in home and 'src="http' not in home, "no request elsewhere"


def test_every_page_of_the_docs_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert {page for page in pages if f": {page}" not in text} == set()
