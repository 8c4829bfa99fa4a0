"""`kshot inspect`: what a predictor knows, what it confuses, and which examples look wrong."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from kshot.cli.own_examples import describe, print_description, stored_encoder
from kshot.heads import HeldOut
from kshot.heads.inspection import (
    hard_pairs,
    hold_out_support,
    likely_mislabelled,
    twins_across_classes,
)
from kshot.predictor import Predictor
from kshot.predictor_file import load_predictor

__all__ = ["main"]

_SHOWN = 10
"""Of each kind of suspicious examples; JSON holds all."""


@dataclass(frozen=True)
class Inspect:
    """Show what a predictor knows, what it confuses, and which of its examples look wrong.

    Attributes:
        file: The predictor, as `kshot fit` made it. Its encoder is not needed.
        json: Print JSON instead of sentences.
    """

    file: tyro.conf.Positional[Path]
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def main(arguments: list[str]) -> int:
    """Parse the arguments, look, print; the exit status."""
    flags = tyro.cli(Inspect, args=arguments, prog="kshot inspect")
    predictor = load_predictor(flags.file, without_encoder=True)
    encoder = stored_encoder(flags.file)
    held_out = _held_out(predictor)
    pairs = _pairs(predictor, held_out)
    mislabelled = _mislabelled(predictor, held_out)
    duplicates = _duplicates(predictor)
    if flags.json:
        described = {
            "file": str(flags.file),
            "encoder": encoder,
            **describe(predictor),
            "hardest_pairs": pairs,
            "likely_mislabelled": mislabelled,
            "duplicates": duplicates,
        }
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return 0
    print(f"{flags.file}: {_sentence(encoder)}")
    print_description(predictor)
    _print_pairs(pairs)
    print()
    _print_list(
        "Likely mislabelled",
        [
            f"{one['example']!r} is labelled {one['label']!r}, but without it looks like "
            f"{one['looks_like']!r} ({_percent(one['probability'])} against "
            f"{_percent(one['own_probability'])})"
            for one in mislabelled
        ],
    )
    _print_list(
        "The same or nearly the same in two classes",
        [
            f"{one['first']!r} of {one['first_label']!r} and {one['second']!r} of "
            f"{one['second_label']!r}: "
            + ("the same" if one["same"] else f"cosine {one['cosine']:.4f}")
            for one in duplicates
        ],
    )
    return 0


def _held_out(predictor: Predictor) -> HeldOut:
    support = predictor.support
    _, columns = support.classes_and_columns()
    return hold_out_support(
        predictor.head.learner,
        predictor.head.chosen.name,
        *map(torch.from_numpy, (support.embeddings, columns, support.is_name)),
    )


def _pairs(predictor: Predictor, held_out: HeldOut) -> list[dict[str, Any]]:
    return [
        {
            "classes": [str(predictor.classes[pair.one]), str(predictor.classes[pair.other])],
            "mistaken": pair.mistaken,
            "held_out": pair.judged,
            "probability": pair.probability,
        }
        for pair in hard_pairs(held_out)
    ]


def _mislabelled(predictor: Predictor, held_out: HeldOut) -> list[dict[str, Any]]:
    support = predictor.support
    return [
        {
            "example": support.sources[one.example],
            "label": str(support.labels[one.example]),
            "looks_like": str(predictor.classes[one.other]),
            "own_probability": one.own_probability,
            "probability": one.other_probability,
        }
        for one in likely_mislabelled(held_out)
    ]


def _duplicates(predictor: Predictor) -> list[dict[str, Any]]:
    support = predictor.support
    examples = np.flatnonzero(~support.is_name)
    _, columns = support.classes_and_columns()
    found = twins_across_classes(support.embeddings[examples], columns[examples])
    return [
        {
            "first": support.sources[first],
            "first_label": str(support.labels[first]),
            "second": support.sources[second],
            "second_label": str(support.labels[second]),
            "cosine": twins.cosine,
            "same": twins.same,
        }
        for twins in found
        for first, second in [(examples[twins.first], examples[twins.second])]
    ]


def _print_pairs(pairs: Sequence[dict[str, Any]]) -> None:
    if not pairs:
        print("\nHardest to tell apart: unknown, since no example can be held out.")
        return
    print("\nHardest to tell apart, by examples held out:")
    for pair in pairs:
        one, other = pair["classes"]
        print(
            f"  {one} / {other}: {pair['mistaken']:.3g} of {pair['held_out']} are taken for the "
            f"other, which gets {_percent(pair['probability'])} on average"
        )


def _print_list(title: str, lines: Sequence[str]) -> None:
    if not lines:
        print(f"{title}: none found.")
        return
    print(f"{title}:")
    for line in lines[:_SHOWN]:
        print(f"  {line}")
    if len(lines) > _SHOWN:
        print(f"  and {len(lines) - _SHOWN} more, all of them with --json")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _sentence(encoder: dict[str, Any] | None) -> str:
    """What reads the inputs."""
    if encoder is None:
        return "learned from embeddings, without an encoder"
    name = encoder["spec"] or "an encoder of the user's own"
    return f"reads {encoder['kind']} by {name} ({encoder['fingerprint'][:12]})"
