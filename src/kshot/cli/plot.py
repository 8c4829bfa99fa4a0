"""`kshot plot`: draw the figures of trained runs again."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from kshot.cli.figures import write_figures
from kshot.evaluation.results import read_results
from kshot.training.run import load_run

__all__ = ["main"]


@dataclass(frozen=True)
class Plot:
    """Draw the figures of trained runs again, into the folder figures/ of each.

    Attributes:
        runs: Folders of runs.
        device: Where to count mistakes: "auto" takes a GPU when there is one.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    device: str = "auto"


def main(arguments: list[str]) -> int:
    """Parse the arguments, draw, print the paths; the exit status."""
    flags = tyro.cli(Plot, args=arguments, prog="kshot plot")
    if not flags.runs:
        raise ValueError("Name at least one run's folder: kshot plot runs/glyphs-protonet-1.")
    for folder in flags.runs:
        run = load_run(folder, flags.device)
        for path in write_figures(run, folder, read_results(folder / "results.json")):
            print(path)
    return 0
