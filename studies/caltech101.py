"""`python -m studies caltech101 [conv4|resnet12]`: the metric family on photographs, one budget.

Each learner trains as recipes/caltech101/compare.toml says, at the learning rate that its recipe on
Omniglot chose (the Siamese network's was chosen here, on validation classes); a run that is there
already is not trained again. Then all are scored on the same
episodes of unseen classes, the baselines that need no training of their own on the encoders of
those that pre-train, and compared with the prototypical network episode by episode.
"""

from pathlib import Path

from kshot.cli import train
from kshot.cli.scored_runs import differences_from_first
from kshot.config import Choice
from kshot.evaluation.results import merge_results
from kshot.training.run import load_run, on_trained_encoder
from kshot.training.scoring import Scored, evaluate_run

__all__ = ["main"]

RECIPE = "recipes/caltech101/compare.toml"
RESULTS = Path("results/caltech101")

BACKBONES = {"conv4": [], "resnet12": ["--backbone.widths", "16", "32", "64", "128"]}

TRAINED = {
    "protonet": ["--training.outer-lr", "4e-3"],
    "gaussian_protonet": ["--training.outer-lr", "4e-3"],
    "matching": ["--training.outer-lr", "4e-3"],
    "matching_fce": ["--training.outer-lr", "4e-3"],
    "siamese": [],
    # Summing over examples, it needs the shots that it is tested with.
    "relation": [
        *("--learner.objective", "cross_entropy", "--episodes.shot", "1", "5"),
        *("--training.outer-lr", "2e-3"),
    ],
    "simple_shot": ["--training.outer-lr", "2e-3"],
    "baseline_plus_plus": ["--training.outer-lr", "1e-2"],
}

# Embeddings of few numbers are compared themselves, as on Omniglot. With 1,600 the logits would be
# too large to learn from at first: 256 features are learned on top.
SIAMESE = {
    "conv4": ["--training.outer-lr", "2e-2"],
    "resnet12": ["--learner.features", "0", "--training.outer-lr", "4e-2"],
}

# Full context embeddings of Conv4's 1,600 numbers have LSTMs of 72 million weights: far more
# than a network that others train in minutes.
LEFT_OUT = {("matching_fce", "conv4")}

# Whose encoder, and what on it; the head's rate, too, is what Omniglot's validation classes chose.
HEADS = [
    ("simple_shot", Choice("fine_tuning", {"tune": "head", "inner_lr": 0.3})),
    ("baseline_plus_plus", Choice("imprinted", {})),
    ("baseline_plus_plus", Choice("nearest_neighbor", {})),
]


def main(arguments: list[str]) -> None:
    """Train what is not trained yet, score all, compare and store."""
    for backbone in arguments or BACKBONES:
        names = [name for name in TRAINED if (name, backbone) not in LEFT_OUT]
        folders = {name: _trained(name, backbone) for name in names}
        scored = {folder: _scored(folder) for folder in folders.values()}
        for name, head in HEADS:
            scored[folders[name] / head.name] = _scored(folders[name], head)
        for one in differences_from_first(scored):
            one.theirs.row["against"] = one.against
        rows = [one.row for parts in scored.values() for one in parts]
        merge_results(RESULTS / f"{backbone}.json", rows)


def training_command(learner: str, backbone: str) -> list[str]:
    """The arguments of `kshot train` for a learner on a backbone."""
    # Relation networks read maps where the backbone can give them, as in their paper.
    maps = learner == "relation" and backbone == "conv4"
    return [
        *(RECIPE, "--learner", learner),
        *("--backbone", "feature_maps" if maps else backbone, *BACKBONES[backbone]),
        *TRAINED[learner],
        *(SIAMESE[backbone] if learner == "siamese" else []),
        *("--out", f"runs/caltech101_{backbone}_{learner}"),
    ]


def _trained(learner: str, backbone: str) -> Path:
    """The folder of a trained run."""
    arguments = training_command(learner, backbone)
    folder = Path(arguments[-1])
    if not (folder / "results.json").exists():
        train.main(["--resume", str(folder)] if (folder / "run.json").exists() else arguments)
    return folder


def _scored(folder: Path, head: Choice | None = None) -> list[Scored]:
    """The scores of a run, or of a head on its encoder."""
    run = load_run(folder)
    command = None
    if head is not None:
        run = on_trained_encoder(run, head)
        command = "python -m studies caltech101"
    return evaluate_run(run, folder, command=command)
