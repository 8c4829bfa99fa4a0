"""The registry of backbones: name -> constructor and one line, read by CLI, tests and docs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.feature_maps import FeatureMaps
from kshot.backbones.heads import Flatten
from kshot.backbones.koch import KochEncoder
from kshot.backbones.mlp import MLP
from kshot.backbones.resnet12 import ResNet12
from kshot.config import Choice
from kshot.options import call_with_options, nearest

__all__ = ["BACKBONES", "BackboneRow", "build_backbone"]


@dataclass(frozen=True)
class BackboneRow:
    """A backbone: its constructor takes `input_shape` and gives a module with `embedding_dim`.

    Attributes:
        constructor: the class.
        summary: what it is, on one line.
        presets: options that make it what its name says.
        pictures: whether it reads pictures (channels, height, width) only.
    """

    constructor: Callable[..., nn.Module]
    summary: str
    presets: Mapping[str, Any] = field(default_factory=dict)
    pictures: bool = False


BACKBONES: dict[str, BackboneRow] = {
    "conv4": BackboneRow(Conv4, "four pooled convolution blocks, 64 channels", pictures=True),
    "conv4_strided": BackboneRow(
        Conv4, "four strided convolution blocks, 64 channels", {"strided": True}, pictures=True
    ),
    "feature_maps": BackboneRow(
        FeatureMaps, "four convolution blocks, two of them pooled, for relation", pictures=True
    ),
    "koch": BackboneRow(
        KochEncoder, "four unpadded convolution layers for 105 px, for siamese", pictures=True
    ),
    "resnet12": BackboneRow(ResNet12, "four residual blocks, mean over space", pictures=True),
    "mlp": BackboneRow(MLP, "fully connected layers"),
    "flatten": BackboneRow(Flatten, "the inputs themselves, flattened to a vector"),
}
"""Every backbone, by the name that the command line and recipes use."""


def build_backbone(choice: Choice, input_shape: tuple[int, ...]) -> nn.Module:
    """Build a backbone for inputs of a shape.

    Raises:
        ValueError: for an unknown name or option, naming the nearest known one.
    """
    if choice.name not in BACKBONES:
        raise ValueError(f"Unknown backbone {choice.name!r}.{nearest(choice.name, BACKBONES)}")
    row = BACKBONES[choice.name]
    if row.pictures and len(input_shape) != 3:
        raise ValueError(
            f"Backbone {choice.name!r} needs pictures (channels, height, width), and the inputs "
            f"are {input_shape}. Choose another, such as mlp."
        )
    return call_with_options(
        row.constructor, {**row.presets, **choice.options}, f"backbone {choice.name!r}", input_shape
    )
