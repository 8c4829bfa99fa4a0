"""A predictor as one file: safetensors with JSON in its header, and no code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from kshot.data.atomic import write_atomically
from kshot.encoders import Encoder, load_encoder
from kshot.encoders.last_block import LastBlock
from kshot.evaluation.intervals import Share
from kshot.heads import HEADS, Candidate, FittedHead, Rejection
from kshot.heads.adapter import restore_adapter
from kshot.heads.choice import ADAPTER, DEFAULT, LAST_BLOCK
from kshot.heads.held_out import adapted
from kshot.heads.last_block import LastBlockTuning, TunedBlock
from kshot.predictor import Predictor, Support

__all__ = ["load_predictor", "save_predictor", "stored_encoder"]

_FORMAT = 1
"""Raised when older versions of kshot could not read what is written."""

_ADAPTER, _TUNED = "adapter.", "tuned."
"""What the names of the tensors of an adapter, and of a tuned last block, begin with."""


def save_predictor(predictor: Predictor, path: Path | str) -> None:
    """Write a predictor to a file, whole or not at all.

    It holds the embeddings of the examples, their labels and sources, what was chosen, and the
    weights of an adapter or a tuned last block; of the encoder it holds the name and the
    fingerprint, not the weights.

    Raises:
        ValueError: for a head of one's own, which has no name to find it again by.
    """
    if not isinstance(predictor.asked, str):
        raise ValueError(
            f"A predictor with a head of one's own ({predictor.head.chosen.name}) cannot be saved: "
            f"a file names its head. Take one of {', '.join(HEADS)}, or pickle the predictor."
        )
    support, encoder = predictor.support, predictor.encoder
    described = {
        "format": _FORMAT,
        "encoder": None
        if encoder is None
        else {"spec": encoder.spec, "kind": encoder.kind, "fingerprint": encoder.fingerprint},
        "labels": support.labels,
        "sources": support.sources,
        "asked": predictor.asked,
        "false_accept": predictor.false_accept,
        "chosen": predictor.head.chosen.name,
        "reason": predictor.head.reason,
        "candidates": [asdict(candidate) for candidate in predictor.head.candidates],
        "rejection": None if predictor.rejection is None else predictor.rejection._asdict(),
    }
    tensors = {"embeddings": np.ascontiguousarray(support.embeddings), "is_name": support.is_name}
    if predictor.adapter is not None:
        tensors |= _named(_ADAPTER, predictor.adapter.state_dict())
    if isinstance(predictor.head.learner, LastBlockTuning):
        described["block"] = predictor.head.learner.end.name
        tensors |= _named(_TUNED, predictor.head.state.as_tensors())
    content = save(tensors, {"kshot": json.dumps(described, ensure_ascii=False)})
    write_atomically(Path(path), content)


def load_predictor(
    path: Path | str, *, encoder: Encoder | None = None, without_encoder: bool = False
) -> Predictor:
    """Read a predictor from a file.

    Args:
        path: what `save_predictor` wrote.
        encoder: the encoder it was made with; None loads it by the name in the file.
        without_encoder: leave the encoder out, to look at what is stored or to give embeddings.

    Raises:
        ValueError: when the file is no predictor, or of a later version; when its encoder is a
            function of one's own and none is given, since a file must not decide what code runs;
            when the encoder is another one than it was made with.
    """
    path = Path(path)
    described, tensors = _read(path)
    labels = tuple(described["labels"])
    support = Support(
        tensors["embeddings"], labels, tuple(described["sources"]), tensors["is_name"]
    )
    if not without_encoder and (encoder is not None or described["encoder"]):
        encoder = _checked_encoder(path, encoder, described["encoder"])
    candidates = tuple(_candidate(values) for values in described["candidates"])
    chosen = next(each for each in candidates if each.name == described["chosen"])
    classes, columns = support.classes_and_columns()
    weights = _under(_ADAPTER, tensors)
    adapter = restore_adapter(weights) if weights else None
    rows = tuple(map(torch.from_numpy, (support.embeddings, columns)))
    if chosen.name == LAST_BLOCK and encoder is not None:
        learner = LastBlockTuning(LastBlock(encoder, described["block"])).eval()
        state = TunedBlock.of_tensors(_under(_TUNED, tensors))
    else:
        # Without the encoder, a tuned block is looked at through the head that it started from.
        name = DEFAULT if chosen.name == LAST_BLOCK else chosen.name
        learner = adapter if name == ADAPTER and adapter is not None else HEADS[name]().eval()
        state = adapted(learner, *rows)
    head = FittedHead(learner, state, chosen, candidates, described["reason"])
    rejection = described["rejection"]
    return Predictor(
        encoder=encoder,
        support=support,
        classes=classes,
        head=head,
        rejection=None if rejection is None else Rejection(**rejection),
        asked=described["asked"],
        false_accept=described["false_accept"],
        adapter=adapter,
    )


def stored_encoder(path: Path) -> dict[str, Any] | None:
    """What a predictor's file says of its encoder (spec, kind, fingerprint), without loading it."""
    return _read(path)[0]["encoder"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. `kshot fit` makes one.")
    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {}).get("kshot")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a predictor that kshot saved, or damaged: {error}."
        ) from error
    if text is None:
        raise ValueError(f"{path} holds tensors, but no predictor that kshot saved.")
    described = json.loads(text)
    if described["format"] > _FORMAT:
        raise ValueError(
            f"{path} was written by a later version of kshot (format {described['format']}, this "
            f"one reads {_FORMAT}): pip install --upgrade kshot."
        )
    return described, tensors


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors as a file holds them, under names of their own."""
    return {prefix + name: value.cpu().contiguous().numpy() for name, value in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The tensors of a file whose names begin so, without that beginning."""
    return {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _checked_encoder(
    path: Path, given: Encoder | None, described: dict[str, Any] | None
) -> Encoder:
    if described is None:
        raise ValueError(f"{path} was made of embeddings, not with an encoder: give none.")
    spec = described["spec"]
    if given is None:
        if spec is None or spec.startswith("python:"):
            named = "a module of one's own" if spec is None else f"the function {spec}"
            raise ValueError(
                f"The encoder of {path} is {named}, and a file must not decide what code runs: "
                "give the encoder yourself, encoder=... or --encoder."
            )
        given = load_encoder(spec)
    if given.fingerprint != described["fingerprint"]:
        raise ValueError(
            f"{path} was made with another encoder than {given.spec or type(given).__name__}: its "
            f"fingerprint is {described['fingerprint'][:12]}, not {given.fingerprint[:12]}. Were "
            f"other weights given? It was made with {spec}."
        )
    return given


def _candidate(values: dict[str, Any]) -> Candidate:
    accuracy = values.pop("accuracy")
    return Candidate(accuracy=None if accuracy is None else Share(*accuracy), **values)
