"""Examples as users hold them: arrays, tensors and lists become a learner's inputs."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learner import MetaLearner

__all__ = [
    "as_array",
    "as_inputs",
    "as_numbers",
    "checked_learner",
    "inductive",
    "place_of",
    "refusals",
]


def checked_learner(
    learner: Any, kind: Literal["classification", "regression"], name: str
) -> MetaLearner:
    """The learner, if it is one and of a kind; otherwise an error that names who asks for it."""
    if not isinstance(learner, MetaLearner):
        raise TypeError(
            f"{name} needs a kshot learner, not {type(learner).__name__}. Give it a trained "
            "MetaLearner, such as load_run(folder).learner."
        )
    if learner.loss.kind != kind:
        raise ValueError(
            f"{name} needs a learner of {kind}, but the loss of this {type(learner).__name__} is "
            f"{learner.loss.name}: use the other estimator, or another loss."
        )
    return learner


def place_of(learner: MetaLearner) -> tuple[torch.device, torch.dtype]:
    """Where and how precisely a learner computes; without weights of its own, exactly."""
    weight = next(learner.parameters(), None)
    return (torch.device("cpu"), torch.float64) if weight is None else (weight.device, weight.dtype)


def as_array(data: Any) -> Any:
    """Tensors as arrays; the rest is left to scikit-learn, which reads the names of columns."""
    return data.detach().cpu().numpy() if isinstance(data, Tensor) else data


def as_numbers(X: Any) -> Any:
    """Examples as `as_array` has them, when they are no names of files and no sentences.

    Raises:
        ValueError: for names of files and sentences, which an encoder reads.
    """
    array = as_array(X)
    listed = isinstance(array, list | tuple) or (isinstance(array, np.ndarray) and array.ndim == 1)
    if listed and len(array) and isinstance(array[0], str | bytes | os.PathLike):
        raise ValueError(
            f"X holds names of files or sentences, such as {array[0]!r}, and without an encoder it "
            "must hold numbers. Give an encoder, encoder=load_encoder(...), or read the files: "
            "kshot.data.pictures.prepare_picture makes an array of a picture."
        )
    return array


def as_inputs(X: np.ndarray, learner: MetaLearner) -> Float[Tensor, "1 n *shape"]:
    """Inputs of one task from examples (n, *shape): uint8 divided by 255, the rest as it is."""
    inputs = torch.tensor(np.ascontiguousarray(X)).to(*place_of(learner)).unsqueeze(0)
    return inputs / 255 if X.dtype == np.uint8 else inputs


@contextlib.contextmanager
def refusals(learner: MetaLearner, X: np.ndarray) -> Iterator[None]:
    """Within: what torch says of inputs of a wrong shape becomes an error that says how to mend."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        expected = "of the shape its network was built for"
        for layer in reversed([*learner.modules()]):  # the first layer is the last to speak
            if isinstance(layer, nn.Conv2d):
                expected = f"(n, {layer.in_channels}, height, width), as in training"
            elif isinstance(layer, nn.Linear):
                expected = f"of {layer.in_features} numbers each"
        raise ValueError(
            f"{type(learner).__name__} takes inputs {expected}, but X is {X.shape}: {error}. For "
            "pictures, X[:, None] adds the channel of grey ones and X.transpose(0, 3, 1, 2) moves "
            "channels from the last place."
        ) from error


def inductive(learner: MetaLearner) -> MetaLearner:
    """The learner itself, under a policy that looks at one query at a time.

    Raises:
        ValueError: when it can only look at queries together.
    """
    if learner.batch_norm == "batch":
        if "support_and_query" not in learner.batch_norm_policies:
            raise ValueError(
                f"{type(learner).__name__} under the BatchNorm policy 'batch' can only look at "
                "queries together, so it cannot predict: train it with batch_norm='running'."
            )
        warnings.warn(
            "The learner's BatchNorm policy 'batch' makes a prediction depend on the others in the "
            "call; here it is 'support_and_query' instead, whose accuracy "
            "evaluate(..., batch_norm='support_and_query') tells.",
            stacklevel=4,
        )
        learner.batch_norm = "support_and_query"
    return learner
