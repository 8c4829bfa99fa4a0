"""`kshot report`: results, figures and all it takes to reproduce them, on one page."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from matplotlib.figure import Figure

from kshot.cli.figures import write_figures
from kshot.cli.flags import parse_flags
from kshot.cli.outputs import check_outputs
from kshot.cli.scored_runs import (
    difference_rows,
    differences_from_first,
    first_configuration,
    own_conditions,
    side_by_side_figure,
)
from kshot.cli.tables import learner_name, published, score_text, task_name
from kshot.data.atomic import write_atomically
from kshot.evaluation.results import read_results
from kshot.report import Code, Picture, Report, Section, Table, Text, to_html, to_markdown
from kshot.training.run import Run, load_run, read_description
from kshot.training.scoring import evaluate_run

__all__ = ["main"]

DESCRIPTION = """Write a page about trained runs: kshot report RUN... [FLAGS].

It has their results beside the papers' figures, their figures, their configuration, and what it
takes to reproduce them. Several runs are scored anew, as the first one was unless flags say
otherwise, and compared with it episode by episode; of one run the stored results are told."""


@dataclass(frozen=True)
class Output:
    """What the report is of, and where it goes.

    Attributes:
        runs: Folders of runs.
        out: HTML file to write, with all pictures inside it. Beside it go a Markdown file of the
            same name, and its pictures in a folder of that name.
        device: Where to compute: "auto" takes a GPU when there is one.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    out: Path = Path("report.html")
    device: str = "auto"


class _Told(NamedTuple):
    """A run, what its folder says of it, and its result rows."""

    folder: Path
    run: Run
    description: dict[str, Any]
    rows: list[dict[str, Any]]


def main(arguments: list[str]) -> int:
    """Parse the arguments, score what has to be, write; the exit status."""
    config, flags = parse_flags(
        arguments,
        first_configuration(arguments),
        Output,
        program="kshot report",
        description=DESCRIPTION,
        parts=("evaluation",),
    )
    if not flags.runs:
        raise ValueError("Name at least one run's folder: kshot report runs/glyphs-protonet-1.")
    if flags.out.suffix != ".html":
        raise ValueError(f"The report is an HTML file: --out {flags.out.with_suffix('.html')}.")
    runs = {folder: load_run(folder, flags.device) for folder in flags.runs}
    check_outputs(folder=flags.out.with_suffix(""))
    differences: list[list[str]] = []
    anew = len(runs) > 1 or any(word.startswith("--evaluation") for word in arguments)
    if anew:
        command = shlex.join(["kshot", "report", *arguments])
        conditions = own_conditions(runs, config.evaluation)
        scored = {
            folder: [*evaluate_run(run, folder, conditions[folder], command=command)]
            for folder, run in runs.items()
        }
        found = difference_rows(differences_from_first(scored))
        differences = [[cell.replace("+-", "±") for cell in line] for line in found]
        rows = {folder: [one.row for one in parts] for folder, parts in scored.items()}
    else:
        rows = {folder: read_results(folder / "results.json") for folder in runs}
    told = [
        _Told(folder, run, read_description(folder), rows[folder]) for folder, run in runs.items()
    ]
    report = _report(told, differences)
    _write(report, flags.out)
    print(f"report  {flags.out}\nreport  {flags.out.with_suffix('.md')}")
    return 0


def _write(report: Report, path: Path) -> None:
    """The HTML file, and beside it the Markdown with its pictures."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                (folder / f"{block.name}.png").write_bytes(block.png)
    write_atomically(path, to_html(report))
    write_atomically(path.with_suffix(".md"), to_markdown(report, folder.name))


def _report(told: Sequence[_Told], differences: list[list[str]]) -> Report:
    learners = " and ".join(dict.fromkeys(one.run.config.learner.name for one in told))
    data = " and ".join(dict.fromkeys(one.run.config.data.name for one in told))
    sections = [Section("Results", _results(told))]
    if differences:
        about = Text(
            "Each is the later run's score less the first one's, episode by episode on the same "
            "episodes: what makes an episode hard for both cancels."
        )
        columns = ["runs", "task", "difference, 95 % interval"]
        sections.append(Section("Paired differences", [about, Table(columns, differences)]))
    sections.append(Section("Figures", _figures(told)))
    sections.append(Section("Configuration", _configuration(told)))
    sections.append(Section("How to reproduce", _origin(told)))
    return Report(f"{learners} on {data}", sections)


def _results(told: Sequence[_Told]) -> list[Text | Table]:
    columns = ["run", "learner", "task", "queries", "score, 95 % interval"]
    columns += ["BatchNorm", "published", "where it stands"]
    rows: list[list[str]] = []
    for one in told:
        for row in one.rows:
            line = [
                one.folder.name,
                learner_name(row),
                task_name(row),
                str(row["query_shot"]),
                score_text(row).replace("+-", "±"),
                row["batch_norm"] + (" (transductive)" if row["transductive"] else ""),
                published(row),
                (row["published"] or {}).get("where", ""),
            ]
            # Every run brings the same pixel baseline.
            if all(line[1:] != other[1:] for other in rows):
                rows.append(line)
    if not rows:
        return [Text("No results yet: kshot evaluate RUN --results RUN/results.json.")]
    # What is the same everywhere is said once.
    episodes = sorted({row["episodes"] for one in told for row in one.rows})
    counts = " or ".join(f"{count:,}" for count in episodes)
    splits = ", ".join(
        dict.fromkeys(
            f"{row['data']} ({row['protocol']}), {row['split']}" for one in told for row in one.rows
        )
    )
    about = (
        f"{splits}; {counts} episodes a row. Intervals are of the mean over episodes, of one "
        "training; under a transductive policy queries share statistics."
    )
    return [Text(about), Table(columns, rows)]


def _figures(told: Sequence[_Told]) -> list[Text | Picture]:
    pictures = []
    drawable = {one.folder: one.run for one in told}
    if len(told) > 1:
        rows = [row for one in told for row in one.rows]
        one_kind = len({run.tasks.kind for run in drawable.values()}) == 1
        takes_steps = all(one.run.learner.num_test_steps is not None for one in told)
        if one_kind and (told[0].run.tasks.kind == "classification" or takes_steps):
            figure = side_by_side_figure(drawable, rows)
            pictures.append(Picture("side_by_side", _png(figure), "The runs side by side"))
    for number, one in enumerate(told):
        drawn = sorted((one.folder / "figures").glob("*.png"))
        for path in drawn or write_figures(one.run, one.folder, one.rows):
            title = f"{one.folder.name}: {path.stem.replace('_', ' ')}"
            pictures.append(Picture(f"{number + 1}_{path.stem}", path.read_bytes(), title))
    return pictures or [Text("None applies.")]


def _configuration(told: Sequence[_Told]) -> list[Text | Table]:
    """What differs between the runs, and the whole of it."""
    tables = [_flat(one.description["config"]) for one in told]
    keys = dict.fromkeys(key for table in tables for key in table)
    lines = [[key, *(table.get(key, "") for table in tables)] for key in keys]
    columns = ["", *(one.folder.name for one in told)]
    whole = Table(columns, lines, "all values", folded=True)
    different = [line for line in lines if len(set(line[1:])) > 1]
    chosen = [line for line in lines if line[0] in ("data", "backbone", "learner")]
    first = Table(columns, different or chosen, "what differs" if different else "")
    return [first, whole]


def _flat(config: dict[str, Any]) -> dict[str, str]:
    """A configuration as one line a value, under its flag's name."""
    lines = {}
    for table, values in config.items():
        if table == "published":
            continue  # they stand beside the results
        if not isinstance(values, dict):
            lines[table] = json.dumps(values)
            continue
        for key, value in values.items():
            shown = value if isinstance(value, str) else json.dumps(value)
            lines[table if key == "name" else f"{table}.{key}"] = shown
    return lines


def _origin(told: Sequence[_Told]) -> list[Code | Table]:
    """The commands, and what they ran with."""
    lines: list[list[str]] = []
    for name, key in (("recipe", "recipe"), ("git revision", "git"), ("machine", "machine")):
        lines.append([name, *(str(one.description[key] or "none") for one in told)])
    lines.append(["seed", *(str(one.run.config.training.seed) for one in told)])
    trainings = [one.run.training for one in told]
    lines.append(["outer iterations", *(f"{training.iteration:,}" for training in trainings)])
    lines.append(["training, minutes", *(f"{one.seconds / 60:.1f}" for one in trainings)])
    counts = (sum(value.numel() for value in one.run.learner.parameters()) for one in told)
    lines.append(["meta-parameters", *(f"{count:,}" for count in counts)])
    for package in dict.fromkeys(name for one in told for name in one.description["versions"]):
        lines.append([package, *(one.description["versions"].get(package, "") for one in told)])
    commands = "\n".join(one.description["command"] for one in told)
    return [Code(commands), Table(["", *(one.folder.name for one in told)], lines)]


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
