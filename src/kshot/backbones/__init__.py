"""Backbones: networks that know nothing of episodes."""

from kshot.backbones.conv4 import Conv4
from kshot.backbones.conversion import split_affine
from kshot.backbones.heads import Flatten, WithHead
from kshot.backbones.mlp import MLP
from kshot.backbones.normalization import BatchNorm
from kshot.backbones.registry import BACKBONES
from kshot.backbones.resnet12 import ResNet12

__all__ = [
    "BACKBONES",
    "MLP",
    "BatchNorm",
    "Conv4",
    "Flatten",
    "ResNet12",
    "WithHead",
    "split_affine",
]
