"""`python -m studies caltech101 [conv4|resnet12]`: the metric family on photographs, one budget.

Each learner trains as recipes/caltech101/compare.toml says, at the learning rate that its recipe on
Omniglot chose and at a quarter of it, and the run that does better on validation classes counts; a
run that is there already is not trained again. Then all are scored on the same episodes of unseen
classes, the baselines that need no training of their own on the encoders of those that pre-train
(fine-tuning at the best of three rates), and compared with the prototypical network episode by
episode.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

from kshot.config import Choice
from kshot.training.run import load_run, on_trained_encoder
from kshot.training.scoring import evaluate_run
from studies.compared import scored, store, trained

__all__ = ["main"]

COMMAND = "python -m studies caltech101"
RECIPE = "recipes/caltech101/compare.toml"
RESULTS = Path("results/caltech101")

BACKBONES = {"conv4": [], "resnet12": ["--backbone.widths", "16", "32", "64", "128"]}

RATES = {
    "protonet": ("4e-3", "1e-3"),
    "gaussian_protonet": ("4e-3", "1e-3"),
    "matching": ("4e-3", "1e-3"),
    "matching_fce": ("4e-3", "1e-3"),
    "siamese": ("4e-2", "1e-2"),
    "relation": ("2e-3", "5e-4"),
    "simple_shot": ("2e-3", "5e-4"),
    "baseline_plus_plus": ("1e-2", "2.5e-3"),
}

OPTIONS = {
    # Summing over examples, it needs the shots that it is tested with.
    "relation": ["--learner.objective", "cross_entropy", "--episodes.shot", "1", "5"],
    "siamese": ["--learner.features", "0"],
}

# Full context embeddings of Conv4's 1,600 numbers have LSTMs of 72 million weights: far more
# than a network that others train in minutes.
LEFT_OUT = {("matching_fce", "conv4")}

# Whose encoder, and what on it: the choice that is best on validation classes.
HEADS = [
    (
        "simple_shot",
        [Choice("fine_tuning", {"tune": "head", "inner_lr": rate}) for rate in (3e-1, 3e-2, 3e-3)],
    ),
    ("baseline_plus_plus", [Choice("imprinted", {})]),
    ("baseline_plus_plus", [Choice("nearest_neighbor", {})]),
]


def main(arguments: list[str]) -> None:
    """Train what is not trained yet, score all, compare and store."""
    for backbone in arguments or BACKBONES:
        names = [name for name in RATES if (name, backbone) not in LEFT_OUT]
        folders = {name: _better_trained(name, backbone) for name in names}
        runs = {folder: scored(folder) for folder in folders.values()}
        for name, heads in HEADS:
            only, *others = heads
            head = max(heads, key=partial(_on_validation, folders[name])) if others else only
            runs[folders[name] / head.name] = scored(folders[name], head, COMMAND)
        store(RESULTS / f"{backbone}.json", runs)


def training_command(learner: str, backbone: str, rate: str) -> list[str]:
    """The arguments of `kshot train` for a learner on a backbone at a learning rate."""
    # Relation networks read maps where the backbone can give them, as in their paper.
    maps = learner == "relation" and backbone == "conv4"
    return [
        *(RECIPE, "--learner", learner),
        *("--backbone", "feature_maps" if maps else backbone, *BACKBONES[backbone]),
        *OPTIONS.get(learner, []),
        *("--training.outer-lr", rate),
        *("--out", f"runs/caltech101_{backbone}_{learner}_{rate}"),
    ]


def _better_trained(learner: str, backbone: str) -> Path:
    """The folder of the run, among those of all rates, that is best on validation classes."""
    folders = [trained(training_command(learner, backbone, rate)) for rate in RATES[learner]]
    return max(folders, key=lambda folder: load_run(folder).training.best_score or 0.0)


def _on_validation(folder: Path, head: Choice) -> float:
    """The mean accuracy of a head on a run's encoder, at all shots, on validation classes."""
    run = on_trained_encoder(load_run(folder), head)
    wanted = replace(run.config.evaluation, split="val", episodes=300)
    found = evaluate_run(run, folder, wanted)
    return fmean(one.evaluation.interval.mean for one in found if not one.baseline)
