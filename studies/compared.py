"""What studies share that train several learners and score them on the same episodes."""

from pathlib import Path

from kshot.cli import train
from kshot.cli.scored_runs import differences_from_first
from kshot.config import Choice
from kshot.evaluation.results import merge_results
from kshot.training.run import load_run, on_trained_encoder
from kshot.training.scoring import Scored, evaluate_run

__all__ = ["scored", "store", "trained"]


def trained(arguments: list[str]) -> Path:
    """The folder of a run, trained by these arguments of `kshot train`, the last of which it is."""
    folder = Path(arguments[-1])
    if not (folder / "results.json").exists():
        train.main(["--resume", str(folder)] if (folder / "run.json").exists() else arguments)
    return folder


def scored(folder: Path, head: Choice | None = None, command: str | None = None) -> list[Scored]:
    """The scores of a run, or of a head on its encoder, which a command of its own made."""
    run = load_run(folder)
    if head is not None:
        run = on_trained_encoder(run, head)
    return [*evaluate_run(run, folder, command=command)]


def store(path: Path, runs: dict[Path, list[Scored]]) -> None:
    """Write the rows of all, each compared with the first episode by episode."""
    for one in differences_from_first(runs):
        one.theirs.row["against"] = one.against
    path.unlink(missing_ok=True)  # rows of a run that does not count any more
    merge_results(path, [one.row for parts in runs.values() for one in parts])
