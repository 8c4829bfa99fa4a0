"""How much adaptation changes what each layer computes: similarity before and after."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.backbones.normalization import apply_to_support
from kshot.data.sampler import Sampler
from kshot.episodes import Inputs, map_tensors
from kshot.evaluation.evaluate import evaluation_mode
from kshot.learners.optimization.fast_weights import FastWeightLearner
from kshot.learners.optimization.update_rules import Params

__all__ = ["layer_similarity", "linear_cka"]


def linear_cka(
    first: Float[Tensor, "n features"], second: Float[Tensor, "n others"]
) -> Float[Tensor, ""]:
    """Linear centered kernel alignment of two representations of the same n examples.

    1 where they are equal up to rotation, shift and scale, near 0 where they have nothing in
    common; 0 where one of them is the same for all examples.

    Reference:
        Similarity of Neural Network Representations Revisited. ICML 2019.
        https://arxiv.org/abs/1905.00414
    """
    # By the (n, n) products: there are far fewer examples than features.
    one, other = (
        centered @ centered.T for centered in (first - first.mean(0), second - second.mean(0))
    )
    norms = one.norm() * other.norm()
    return (one * other).sum() / norms.clamp_min(torch.finfo(norms.dtype).tiny)


def layer_similarity(
    learner: FastWeightLearner, sampler: Sampler, num_episodes: int = 100
) -> dict[str, Float[Tensor, " episodes"]]:
    """The similarity of every layer's outputs for the queries, before and after adaptation.

    Where BatchNorm reads statistics of examples, they are those of the queries.

    Args:
        learner: a trained learner; it takes its own number of steps.
        sampler: where episodes come from; episodes 0 .. num_episodes - 1 are taken.
        num_episodes: how many.

    Returns:
        For each convolution and linear layer in the order of the network, its `linear_cka` in every
        episode.
    """
    place = next(learner.parameters())
    found: dict[str, list[Tensor]] = {}
    with torch.no_grad(), evaluation_mode(learner):
        for episode in range(num_episodes):
            support, query, _ = sampler.sample([episode]).to(place.device, place.dtype)
            after = map_tensors(lambda value: value[0], learner.adapt(support).params)
            before = learner.initialization(support.targets.shape[-1]) | learner.beside(0)
            inputs = map_tensors(lambda value: value[0], query.inputs)
            pairs = zip(
                _outputs(learner, before, inputs).items(),
                _outputs(learner, after, inputs).values(),
                strict=True,
            )
            for (name, one), other in pairs:
                similarity = linear_cka(one.flatten(1), other.flatten(1))
                found.setdefault(name, []).append(similarity)
    return {name: torch.stack(values).cpu() for name, values in found.items()}


def _outputs(learner: FastWeightLearner, params: Params, inputs: Inputs) -> dict[str, Tensor]:
    """What each layer with a weight matrix or kernel gives for some inputs (m, *shape)."""
    outputs: dict[str, Tensor] = {}
    hooks = []
    for name, layer in learner.net.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1:

            def keep(layer: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                outputs[name] = output

            hooks.append(layer.register_forward_hook(keep))
    try:
        apply_to_support(
            lambda inputs: torch.func.functional_call(learner.net, params, (inputs,)),
            learner.policy,
            inputs,
            None,
        )
    finally:
        for hook in hooks:
            hook.remove()
    return outputs
