"""Layers of a user's network, replaced by ones whose second-order gradients are exact.

PyTorch's fused kernels have silently wrong ones: those of affine normalization under
`torch.func.vmap` (docs/vmap.md), those of weight normalization everywhere.
"""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from kshot.backbones.normalization import BatchNorm, per_channel

__all__ = ["SplitAffine", "exact_network", "split_affine"]


class SplitAffine(nn.Module):
    """A normalization layer without affine part, then scale and shift by hand.

    Args:
        normalize: the layer without its weight and bias.
        weight: its scale, of the shape the fused layer has.
        bias: its shift, or None.
        channel_dim: 1 for layers with one weight a channel, None where weights have the trailing
            dimensions of the input (LayerNorm).
    """

    def __init__(
        self,
        normalize: nn.Module,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        channel_dim: int | None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.weight = weight
        self.bias = bias
        self.channel_dim = channel_dim
        self.eps = getattr(normalize, "eps", 0.0)  # read by nn.TransformerEncoderLayer

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, scale, shift."""
        x = self.normalize(x)
        if self.channel_dim is None:
            return x * self.weight + (0 if self.bias is None else self.bias)
        y = x * per_channel(self.weight, x)
        return y if self.bias is None else y + per_channel(self.bias, x)


class ExactWeightNorm(nn.Module):
    """The weight of `torch.nn.utils.parametrizations.weight_norm`: g v / |v|.

    Args:
        dim: the dimension along which norms are counted; -1 for one norm of all.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Float[Tensor, "..."], v: Float[Tensor, "*shape"]) -> Tensor:
        """The weight of norms g and a direction v."""
        return v * (g / self._norm(v))

    def right_inverse(self, weight: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Norms and a direction of a weight that is assigned."""
        return self._norm(weight), weight

    def _norm(self, v: Tensor) -> Tensor:
        if self.dim == -1:
            return torch.linalg.vector_norm(v)
        dims = [dim for dim in range(v.dim()) if dim != self.dim]
        return torch.linalg.vector_norm(v, dim=dims, keepdim=True)


def split_affine(net: nn.Module) -> nn.Module:
    """Replace fused normalization layers of a network by exact ones, sharing their parameters.

    BatchNorm1d/2d/3d become `BatchNorm`, LayerNorm and InstanceNorm with affine `SplitAffine`.
    GroupNorm is exact as it is. The network is changed in place and returned; its outputs stay
    the same.

    Raises:
        ValueError: for a BatchNorm layer without running averages or affine part, or with a
            cumulative average, which `BatchNorm` does not have, or which computes more than
            PyTorch's; for an InstanceNorm layer with running averages.
    """
    return _split_affine(net, {})


def exact_network(net: nn.Module) -> nn.Module:
    """A network whose second-order gradients are exact: `split_affine`, with a warning.

    Learners that differentiate through an inner loop pass their network through here.

    Raises:
        ValueError: for a layer that cannot be made exact.
    """
    for layer in net.modules():
        if _computes_more(layer, _AFFINE_NORMS):
            raise ValueError(
                f"{layer} computes its own way, and if it scales and shifts by PyTorch's fused "
                "kernel, second-order gradients are silently wrong (docs/vmap.md). Scale and shift "
                "in a module of your own after a plain layer, or train by first-order gradients."
            )
        if any(isinstance(hook, WeightNorm) for hook in layer._forward_pre_hooks.values()):
            raise ValueError(
                f"{layer} has torch.nn.utils.weight_norm, whose second-order gradients are silently"
                " wrong. Take torch.nn.utils.parametrizations.weight_norm, which kshot makes exact."
            )
    fused = [type(layer).__name__ for layer in net.modules() if _is_fused(layer)]
    if fused:
        warnings.warn(
            f"The network has {', '.join(sorted(set(fused)))}, whose fused kernels give silently "
            "wrong second-order gradients; kshot replaces these layers in place by exact ones with "
            "the same parameters and outputs (kshot.split_affine, docs/vmap.md).",
            stacklevel=4,  # the caller of the learner's constructor
        )
    return split_affine(net)


_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_AFFINE_NORMS = (nn.LayerNorm, *_INSTANCE_NORMS)


def _is_fused(layer: nn.Module) -> bool:
    if isinstance(layer, nn.LayerNorm):
        affine = layer.elementwise_affine
    elif isinstance(layer, _INSTANCE_NORMS):
        affine = layer.affine
    else:
        return isinstance(layer, (_BatchNorm, _WeightNorm))
    return affine and not _computes_more(layer, _AFFINE_NORMS)


def _computes_more(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer of these kinds has a forward of its own, which may do anything besides."""
    return isinstance(layer, kinds) and type(layer).forward not in {each.forward for each in kinds}


def _split_affine(net: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """`split_affine`, where `done` keeps a layer that is used in several places one layer."""
    if net not in done:
        for name, child in net._modules.items():
            if child is not None:
                setattr(net, name, _split_affine(child, done))
        done[net] = _split_layer(net) if _is_fused(net) else net
    return done[net]


def _split_layer(layer: nn.Module) -> nn.Module:
    if isinstance(layer, _BatchNorm):
        return _split_batch_norm(layer)
    if isinstance(layer, _WeightNorm):
        return ExactWeightNorm(layer.dim)
    if isinstance(layer, nn.LayerNorm):
        shape, channel_dim = list(layer.normalized_shape), None
        plain = nn.LayerNorm(shape, eps=layer.eps, elementwise_affine=False)
    else:
        assert isinstance(layer, _INSTANCE_NORMS)
        if layer.track_running_stats:
            raise ValueError(
                f"{layer} cannot be converted: in evaluation mode it would need its running "
                "averages. Build the layer with track_running_stats=False."
            )
        kind = next(each for each in _INSTANCE_NORMS if isinstance(layer, each))
        plain, channel_dim = kind(layer.num_features, eps=layer.eps), 1
    assert layer.weight is not None
    return SplitAffine(plain, layer.weight, layer.bias, channel_dim).train(layer.training)


def _split_batch_norm(layer: _BatchNorm) -> BatchNorm:
    if _computes_more(layer, (_BatchNorm,)):
        raise ValueError(
            f"{layer} computes more or otherwise than PyTorch's BatchNorm, and kshot has to say "
            "where its statistics come from: put a plain BatchNorm layer, and what else there is "
            "into a module after it."
        )
    if not layer.affine or layer.running_mean is None or layer.momentum is None:
        raise ValueError(
            f"{layer} cannot be converted: kshot's BatchNorm has affine parameters and running "
            "averages with a fixed momentum. Build the layer with affine=True, "
            "track_running_stats=True and a momentum."
        )
    split = BatchNorm(layer.num_features, eps=layer.eps, momentum=layer.momentum)
    split.weight, split.bias = layer.weight, layer.bias
    split.running_mean, split.running_var = layer.running_mean, layer.running_var  # pyright: ignore
    return split.train(layer.training)
