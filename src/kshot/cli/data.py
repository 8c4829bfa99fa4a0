"""`kshot data`: a dataset's splits and classes, and an episode as a picture."""

import json
from dataclasses import dataclass
from pathlib import Path

from kshot.cli.episode_figures import episode_figure
from kshot.cli.flags import parse_flags
from kshot.cli.tables import print_table
from kshot.config import Choice, EpisodeConfig, RunConfig
from kshot.data.frozen import save_episodes
from kshot.data.sampler import EpisodeSampler
from kshot.data.sources import DATASETS, load_data
from kshot.data.splits import LabelledSplits
from kshot.options import nearest

__all__ = ["main"]


@dataclass(frozen=True)
class Look:
    """What to show.

    Attributes:
        split: Split whose episodes are drawn.
        figure: Picture file to draw an episode to; none given draws none.
        freeze: File to keep episodes in, so that others can be scored on the very same ones
            (`kshot evaluate --frozen FILE`).
        num_episodes: How many episodes to keep.
        seed: Seed of the episodes.
        json: Print JSON instead of tables.
    """

    split: str = "test"
    figure: Path | None = None
    freeze: Path | None = None
    num_episodes: int = 600
    seed: int = 0
    json: bool = False


def main(arguments: list[str]) -> int:
    """Parse the arguments, load the data, print its splits; the exit status."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("glyphs", [])
    if name.startswith("-"):
        name, rest = "glyphs", arguments
    if name not in DATASETS:
        raise ValueError(f"Unknown data {name!r}.{nearest(name, DATASETS)}")
    config, look = parse_flags(
        rest,
        RunConfig(data=Choice(name), episodes=EpisodeConfig(query_shot=5)),
        Look,
        program=f"kshot data {name}",
        description="Show a dataset: its splits, classes and groups; with --figure, an episode.",
        parts=("data", "episodes"),
    )
    if look.num_episodes < 1:
        raise ValueError(f"--num-episodes must be 1 or more, not {look.num_episodes}.")
    source = load_data(config.data)
    if not isinstance(source, LabelledSplits):
        if look.figure is not None or look.freeze is not None:
            raise ValueError(f"{name} has neither pictures to draw nor classes to freeze.")
        described = {"name": name, "protocol": source.protocol, "summary": DATASETS[name].summary}
        print(json.dumps(described, indent=2) if look.json else ", ".join(described.values()))
        return 0
    rows = []
    for split, data in source.splits.items():
        counts = [len(places) for places in data.rows]
        groups = sorted(set(data.groups or ()))
        rows.append(
            {
                "split": split,
                "classes": data.num_classes,
                "examples": sum(counts),
                "examples a class": f"{min(counts)} to {max(counts)}",
                "groups": ", ".join(groups) if len(groups) <= 12 else f"{len(groups)} groups",
            }
        )
    if look.json:
        print(json.dumps({"name": name, "protocol": source.protocol, "splits": rows}, indent=2))
    else:
        title = f"{name}, protocol {source.protocol}, inputs {source.input_shape}"
        print_table(title, list(rows[0]), [list(map(str, row.values())) for row in rows])
    if look.figure is None and look.freeze is None:
        return 0
    sampler = source.sampler(look.split, config.episodes, look.seed)
    if not isinstance(sampler, EpisodeSampler):
        raise ValueError(
            "Episodes with unlabelled examples can be neither drawn nor frozen yet: leave "
            "--episodes.labelled-share at 1."
        )
    if look.freeze is not None:
        save_episodes(look.freeze, sampler.indices(range(look.num_episodes)), sampler.dataset)
    if look.figure is not None:
        figure = episode_figure(None, sampler, f"{name} ({source.protocol}): {look.split} classes")
        figure.savefig(look.figure, dpi=150)
    return 0
