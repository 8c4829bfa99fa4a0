"""docs/papers.md is what the registry and the results say, and learners cite their papers."""

import re
import runpy
from pathlib import Path

import pytest

from kshot.config import Choice
from kshot.learners.registry import LEARNERS, TaskShape, build_learner

ROOT = Path(__file__).parents[2]


def test_the_page_of_papers_is_not_stale():
    page = runpy.run_path(str(ROOT / "studies" / "papers.py"))["page"]()
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == page, (
        "the registry or results/ changed: python -m studies papers"
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_cites_the_paper_of_its_row(name: str):
    row = LEARNERS[name]
    if name == "triplet":
        pytest.importorskip("pytorch_metric_learning", reason="needs the extra `metric`")
    learner = build_learner(Choice(name), Choice("mlp"), TaskShape((3,), 5, 10, "classification"))
    assert learner.paper is row.paper
    if row.paper is None:
        assert learner.citation() == "" and row.reference == "-"
        return
    entry = learner.citation()
    assert re.fullmatch(r"@(inproceedings|article|misc)\{\w+,\n(  \w+ = \{.+\},\n)+\}", entry)
    for text in (*row.paper.authors, row.paper.title, str(row.paper.year), row.paper.url):
        assert text in entry
    assert str(row.paper.year) in row.reference and row.notes


def test_a_key_names_one_paper():
    papers = {row.paper for row in LEARNERS.values() if row.paper is not None}
    assert len({paper.key for paper in papers}) == len(papers)


def test_the_docstring_of_a_learner_names_its_paper():
    for name, row in LEARNERS.items():
        if row.paper is None:
            continue
        constructor = row.constructor
        while hasattr(constructor, "func"):
            constructor = constructor.func
        told = " ".join((constructor.__doc__ or "").split())
        assert row.paper.title in told and str(row.paper.year) in told, name
