"""A report holds what there is to say of some runs, and asks for nothing else."""

import json
import re
import shutil
from html.parser import HTMLParser

from kshot.cli import main
from kshot.evaluation.results import read_results


class Page(HTMLParser):
    """The texts of a page, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.loaded += [values[key] for key in ("src", "href") if key in values]
        assert tag != "img" or values["alt"]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_a_report_of_one_run(run_folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    before = (run_folder / "results.json").read_text()
    assert main(["report", str(run_folder), "--out", str(out)]) == 0
    assert (run_folder / "results.json").read_text() == before
    page = Page(out.read_text())
    assert not page.open
    assert all(link.startswith(("data:", "#")) for link in page.loaded)
    pictures = [link for link in page.loaded if link.startswith("data:image/png")]
    assert len(pictures) == len(list((run_folder / "figures").iterdir()))
    row = read_results(run_folder / "results.json")[0]
    score = f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f} %"
    description = json.loads((run_folder / "run.json").read_text())
    for text in (score, description["command"], description["machine"], "conv4"):
        assert text in page.texts
    markdown = out.with_suffix(".md").read_text()
    assert score in markdown and description["command"] in markdown
    for name in re.findall(r"\]\(page/(.*?)\)", markdown):
        assert (tmp_path / "page" / name).stat().st_size > 1000


def test_a_report_of_two_runs_compares_them(run_folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    text = (other / "run.json").read_text()
    (other / "run.json").write_text(re.sub('"outer_lr": [^,]*', '"outer_lr": 0.5', text))
    out = tmp_path / "two.html"
    asked = ["--evaluation.shots", "1", "--evaluation.episodes", "6", "--out", str(out)]
    assert main(["report", str(run_folder), str(other), *asked]) == 0
    page = Page(out.read_text())
    assert "+0.00 ± 0.00" in page.texts, "the same weights on the same episodes"
    assert "what differs" in page.texts and "training.outer_lr" in page.texts
    assert "The runs side by side" in page.texts


def test_what_a_report_needs_is_said(run_folder, capsys):
    assert main(["report"]) == 1 and "Name at least one run" in capsys.readouterr().err
    assert main(["report", str(run_folder), "--out", "page.pdf"]) == 1
    assert "--out page.html" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_told_before_scoring(run_folder, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    for out in (tmp_path / "file.html", file / "page.html"):
        asked = ["--evaluation.shots", "50", "--out", str(out)]
        assert main(["report", str(run_folder), *asked]) == 1
        assert "Nothing can be written into" in capsys.readouterr().err
