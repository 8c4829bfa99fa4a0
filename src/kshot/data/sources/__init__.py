"""Data sets by name: one file for each, and the table the command line and recipes read."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kshot.config import Choice
from kshot.data.sources.glyphs import glyphs
from kshot.data.sources.image_folder import image_folder
from kshot.data.sources.omniglot import OMNIGLOT_PROTOCOLS, omniglot
from kshot.data.sources.orl_faces import orl_faces
from kshot.data.sources.sinusoid import SINUSOID_VARIANTS, sinusoid
from kshot.data.splits import TaskSource
from kshot.options import call_with_options, nearest, option_types

__all__ = [
    "DATASETS",
    "DatasetRow",
    "glyphs",
    "image_folder",
    "load_data",
    "omniglot",
    "orl_faces",
    "sinusoid",
]


@dataclass(frozen=True)
class DatasetRow:
    """A data set of the table.

    Attributes:
        constructor: makes the task source; its keyword-only parameters are the options.
        summary: what it is, on one line.
        kind: what its targets are.
        protocols: the names under which its numbers are reported; those ending in "..." begin so.
        downloads: whether it may have to be downloaded.
    """

    constructor: Callable[..., TaskSource]
    summary: str
    kind: Literal["classification", "regression"]
    protocols: tuple[str, ...]
    downloads: bool = False


DATASETS: dict[str, DatasetRow] = {
    "glyphs": DatasetRow(
        glyphs,
        "hand-like drawings of letters and signs of eleven scripts; made here, no download",
        "classification",
        ("scripts", "scripts-pen"),
    ),
    "omniglot": DatasetRow(
        omniglot,
        "1623 handwritten characters of 50 alphabets, 20 drawings each",
        "classification",
        tuple(OMNIGLOT_PROTOCOLS),
        downloads=True,
    ),
    "orl_faces": DatasetRow(
        orl_faces,
        "40 people, ten grey portraits each; not downloaded",
        "classification",
        ("people25-5-10",),
    ),
    "image_folder": DatasetRow(
        image_folder,
        "your own pictures: one folder for each class",
        "classification",
        ("folders", "seed...", "lists-..."),
    ),
    "sinusoid": DatasetRow(
        sinusoid,
        "regression: sine waves, each from a few of its points",
        "regression",
        tuple(SINUSOID_VARIANTS),
    ),
}
"""Every data set, by the name that the command line and recipes use."""


def load_data(choice: Choice) -> TaskSource:
    """The task source that a configuration names, with its options.

    Raises:
        ValueError: for an unknown name or option, or a missing one; says which are known.

    Example:
        >>> load_data(Choice("sinusoid", {"variant": "nichol"})).protocol
        'nichol'
    """
    if choice.name not in DATASETS:
        raise ValueError(f"Unknown data {choice.name!r}.{nearest(choice.name, DATASETS)}")
    constructor = DATASETS[choice.name].constructor
    parameters = inspect.signature(constructor).parameters
    for option in option_types(constructor):
        if parameters[option].default is inspect.Parameter.empty and option not in choice.options:
            raise ValueError(f"Data {choice.name!r} needs the option {option!r}.")
    return call_with_options(constructor, choice.options, f"data {choice.name!r}")
