"""`kshot train`: meta-train a learner from a recipe, evaluate it, keep all of it in a folder."""

import json
import os
import shlex
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import tyro

from kshot.cli.figures import write_figures
from kshot.cli.flags import as_given, parse_flags
from kshot.cli.outputs import check_outputs
from kshot.cli.recipes import find_recipe, recipe_names
from kshot.cli.tables import print_results
from kshot.config import Choice, RunConfig
from kshot.evaluation.results import merge_results, write_results
from kshot.learners.registry import LEARNERS
from kshot.options import nearest
from kshot.recipe import load_recipe, parse_run
from kshot.training.run import (
    build_run,
    create_folder,
    discard_unstarted,
    load_run,
    read_description,
    train_run,
)
from kshot.training.scoring import check_run, evaluate_run
from kshot.training.trainer import Interrupted

__all__ = ["main"]

DESCRIPTION = """Meta-train a learner and evaluate it: kshot train [RECIPE] [FLAGS].

RECIPE is a learner (its recipe on glyphs is taken), a name from `kshot list recipes`, or a TOML
file; without it, protonet. --data NAME, --backbone NAME and --learner NAME put another one in place
of the recipe's; the flags below change single values."""


@dataclass(frozen=True)
class Output:
    """Where the run goes.

    Attributes:
        out: Folder of the run; none given makes a new one under runs/.
        resume: Folder of an interrupted run to continue; the rest is read from it.
        results: Also write the rows to RESULTS/<data>/<recipe>.json.
        json: Print the rows as JSON instead of a table.
    """

    out: Path | None = None
    resume: Path | None = None
    results: Path | None = None
    json: bool = False


def main(arguments: list[str]) -> int:
    """Parse the arguments, train, evaluate, print; the exit status."""
    config, recipe, output = parse(arguments)
    first_process = os.environ.get("RANK", "0") == "0"
    if not output.resume and not output.out and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError("Several processes train one run together: name its folder with --out.")
    if output.results is not None and output.results.is_file():
        raise ValueError(f"--results {output.results} is a file: name the folder for result files.")
    results = _results_file(output, config, recipe)
    if first_process:
        check_outputs(results)
    folder = output.resume or output.out or _new_folder(config)
    run = build_run(config)
    check_run(run)
    new = output.resume is None and first_process
    if new:
        create_folder(folder, run, _command(arguments), recipe)
    try:
        run = train_run(run, folder, resume=output.resume is not None)
    except Interrupted as stop:
        resume = shlex.join(["kshot", "train", "--resume", str(folder)])
        raise Interrupted(f"{stop} Continue with: {resume}") from None
    except Exception:
        if new:
            discard_unstarted(folder)
        raise
    if not first_process:
        return 0
    run = load_run(folder, config.training.device, run.source)
    rows = []
    for one in evaluate_run(run, folder):
        rows.append(one.row)
        write_results(folder / "results.json", rows)
        if results is not None:
            merge_results(results, [one.row])
    if output.json:
        print(json.dumps(rows, indent=2))
    else:
        print_results(rows)
        print(f"run     {folder}")
    for figure in write_figures(run, folder, rows):
        if not output.json:
            print(f"figure  {figure}")
    return 0


def _command(arguments: list[str]) -> str:
    """The command that trains this run, with how many processes."""
    count = os.environ.get("WORLD_SIZE", "1")
    launcher = [] if count == "1" else ["torchrun", f"--nproc-per-node={count}", "-m"]
    return shlex.join([*launcher, "kshot", "train", *arguments])


def parse(arguments: list[str]) -> tuple[RunConfig, str | None, Output]:
    """The configuration, recipe and output that the arguments of `kshot train` say."""
    rest = list(arguments)
    if any(argument.split("=")[0] == "--resume" for argument in rest):
        return _parse_resume(rest)
    target = rest.pop(0) if rest and not rest[0].startswith("-") else "protonet"
    path = find_recipe(target)
    if path is None and target not in LEARNERS:
        if Path(target).is_file():
            raise ValueError(f"{target} is no recipe: expected a TOML file, named NAME.toml.")
        known = [*LEARNERS, *recipe_names()]
        raise ValueError(f"Unknown learner or recipe {target!r}.{nearest(target, known)}")
    base = RunConfig(learner=Choice(target)) if path is None else load_recipe(path)
    config, output = parse_flags(rest, base, Output, program="kshot train", description=DESCRIPTION)
    # Flags may change the seed, the device and what is evaluated: then it is the recipe still.
    same = config.fingerprint == as_given(base, config).fingerprint
    return config, _recipe_name(path) if same else None, output


def _parse_resume(arguments: list[str]) -> tuple[RunConfig, str | None, Output]:
    """A run is resumed as it was configured, so no other flag would have an effect."""
    output = tyro.cli(
        Output,
        args=arguments,
        prog="kshot train --resume RUN",
        description="Continue an interrupted run, as it was configured.",
    )
    assert output.resume is not None
    if output.out is not None:
        raise ValueError("--resume continues in the run's own folder; --out names a new one.")
    described = read_description(output.resume)
    return parse_run(described["config"]), described["recipe"], output


def _recipe_name(path: Path | None) -> str | None:
    """A recipe as results name it: from `recipes` on, wherever that folder is."""
    if path is None:
        return None
    parts = path.parts
    start = len(parts) - 1 - parts[::-1].index("recipes") if "recipes" in parts else -1
    return Path(*parts[start:]).as_posix() if start >= 0 else path.as_posix()


def _results_file(output: Output, config: RunConfig, recipe: str | None) -> Path | None:
    """Where the rows also go: recipes/omniglot/maml.toml gives omniglot/maml.json."""
    if output.results is None:
        return None
    place = Path(recipe) if recipe else Path(config.data.name, config.learner.name)
    return output.results / Path(*place.parts[-2:]).with_suffix(".json")


def _new_folder(config: RunConfig) -> Path:
    name = f"{config.data.name}-{config.learner.name}"
    return next(
        folder for number in count(1) if not (folder := Path("runs") / f"{name}-{number}").exists()
    )
