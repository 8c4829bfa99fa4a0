"""MAML++: MAML with rates, normalization and a query loss for each of its steps."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.normalization import (
    BatchNorm,
    has_batch_norm,
    recorded_statistics,
    rows_statistics,
)
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, concatenate
from kshot.learners.optimization.fast_weights import (
    FastWeightLearner,
    FastWeights,
    adapted_params,
    parameters_exchanged,
    present_columns,
)
from kshot.learners.optimization.update_rules import SGD, Params, StepRates
from kshot.learners.papers import ANTONIOU_2019
from kshot.learners.task_map import Strategy
from kshot.losses import Loss, cross_entropy, mask_absent
from kshot.options import checks_options
from kshot.transforms import being_traced, ends_outer_step

__all__ = ["MAMLPlusPlus", "step_weights"]


class MAMLPlusPlus(FastWeightLearner):
    """MAML++: six changes that steady and improve MAML, each with a switch; all off, it is MAML.

    - Multi-step loss: the query loss after every step counts, less and less as training goes on.
    - Learned rates: one for every parameter tensor and step.
    - Per-step BatchNorm scale and shift, which inner steps leave alone.
    - Per-step BatchNorm averages, for predictions that do not depend on other queries.
    - Derivative-order annealing: first-order gradients in the first iterations.
    - A cosine schedule of the outer rate, which is `schedule="cosine"` in training.

    State:
        `FastWeights`: the adapted parameters of every task, and its last step's normalization.

    Args:
        net: network from inputs (n, *shape) to outputs (n, max_way). With `per_step_affine` its own
            BatchNorm scales and shifts are frozen: their copies are learned.
        inner_lr: inner learning rate; with `learned_rates` where all of them start.
        num_inner_steps: inner steps in meta-training, at least 1.
        num_test_steps: inner steps in evaluation mode; None takes `num_inner_steps`. What is
            learned for each step repeats its last value in further ones.
        multi_step_iterations: for how many iterations earlier steps count; 0 leaves the last alone.
        first_order_iterations: for how many iterations second derivatives are dropped.
        learned_rates: learn the inner rates.
        per_step_affine: learn BatchNorm's scale and shift for each number of steps taken.
        per_step_statistics: average BatchNorm's statistics for each number of steps taken.
        adapted: which parameters the steps move, by name, with * for any text: "head.*".
        batch_norm: where BatchNorm statistics come from. "per_step" takes those of the batch in
            meta-training and the averages in evaluation mode. "batch" as in the authors' code,
            which keeps averages and never reads them.
        strategy: compute tasks by vmap or in a loop; "auto" chooses by size.
        chunk_size: tasks vectorized at once, which bounds memory; 0 means all.
        loss: loss of a task, inner and outer.

    Raises:
        ValueError: for no inner steps, and for "per_step" without `per_step_statistics`.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = MAMLPlusPlus(nn.Linear(2, 5))
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Note:
        - Normalization belongs to the number of steps taken, so that support and query pass through
          the same parameters in the same way; the authors' query loss after a step uses what its
          support loss before the step used.
        - Averages are those of support and query together, over all tasks of a meta-batch.
        - An iteration is a call of `meta_loss` in training mode; of the micro-batches of an outer
          step only the last counts.

    Reference:
        How to train your MAML. ICLR 2019. https://arxiv.org/abs/1810.09502
    """

    paper = ANTONIOU_2019
    batch_norm_policies = (*FastWeightLearner.batch_norm_policies, "per_step")
    iterations: Tensor

    @checks_options
    def __init__(
        self,
        net: nn.Module,
        *,
        inner_lr: float = 0.1,
        num_inner_steps: int = 5,
        num_test_steps: int | None = None,
        multi_step_iterations: int = 5000,
        first_order_iterations: int = 0,
        learned_rates: bool = True,
        per_step_affine: bool = True,
        per_step_statistics: bool = True,
        adapted: tuple[str, ...] = ("*",),
        batch_norm: BatchNormPolicy = "batch",
        strategy: Strategy = "auto",
        chunk_size: int = 0,
        loss: Loss = cross_entropy,
    ) -> None:
        if num_inner_steps < 1:
            raise ValueError(f"MAML++ needs at least 1 inner step, not {num_inner_steps}.")
        super().__init__(
            net,
            SGD(inner_lr),
            adapted=adapted,
            num_inner_steps=num_inner_steps,
            num_test_steps=num_test_steps,
            first_order=False,
            batch_norm=batch_norm,
            strategy=strategy,
            chunk_size=chunk_size,
            loss=loss,
        )
        if not per_step_statistics:
            self.batch_norm_policies = FastWeightLearner.batch_norm_policies
            if batch_norm == "per_step" and has_batch_norm(net):
                raise ValueError("batch_norm='per_step' reads what per_step_statistics=True keeps.")
        self.multi_step_iterations = multi_step_iterations
        self.first_order_iterations = first_order_iterations
        self.register_buffer("iterations", torch.zeros((), dtype=torch.long))
        self._norms = {
            name: layer for name, layer in self.net.named_modules() if isinstance(layer, BatchNorm)
        }
        copies = num_inner_steps + 1
        affine = self._of_norms("weight", "bias") if per_step_affine else {}
        averages = self._of_norms("running_mean", "running_var") if per_step_statistics else {}
        self.affine = _PerStep(affine, copies)
        self.averages = _PerStep(averages, copies)
        for value in affine.values():
            value.requires_grad_(False)
        params = adapted_params(self.net, adapted)
        self.adapted = tuple(params)
        if learned_rates:
            self.rule = StepRates(params, num_inner_steps, inner_lr)
        self._phase = self.phase

    def beside(self, step: int) -> Params:
        """BatchNorm's scale, shift and averages after some steps."""
        averages = self.averages.after(step) if self.policy == "per_step" else {}
        return {**self.affine.after(step), **averages}

    @property
    def policy(self) -> BatchNormPolicy:
        """The BatchNorm policy in force: averages are read in evaluation mode alone."""
        return "batch" if self.training and self.batch_norm == "per_step" else self.batch_norm

    @property
    def phase(self) -> tuple[bool, bool, bool]:
        """Whether second derivatives are dropped, each step's loss counts, the iteration ends."""
        if being_traced():  # the number of iterations cannot be read: as the last eager loss had it
            return self._phase
        iteration = int(self.iterations)
        return (
            iteration < self.first_order_iterations,
            iteration < self.multi_step_iterations,
            ends_outer_step(),
        )

    @property
    def first_order(self) -> bool:
        """Whether second derivatives are dropped at this iteration."""
        return self.training and self.phase[0]

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The query losses after each step, weighted; in training mode averages are kept."""
        if not self.training:
            return super().meta_loss(episodes)
        num_steps = self.num_inner_steps
        self._phase = self.phase
        _, each_counts, ends = self._phase

        def one_task(
            support: Examples,
            query: Examples,
            seen: Tensor,
            present: Tensor | None,
            everything: Examples,
        ) -> tuple[Tensor, Params]:
            losses, statistics = [], []
            for step, params in enumerate(self.trajectory(start, support, seen)):
                if step == num_steps or (step and each_counts):
                    losses.append(self._query_loss(params, support, seen, query, present))
                if self.averages.names:
                    statistics.append(self._statistics(params, everything, len(seen)))
            stacked = {
                name: torch.stack([each[name] for each in statistics])
                for name in (statistics[0] if statistics else ())
            }
            return torch.stack(losses), stacked

        support, query, present = episodes.support, episodes.query, episodes.present
        seen = present_columns(support, self.loss)
        everything = concatenate(support, query)
        with parameters_exchanged():
            start = self.initialization(support.targets.shape[-1])
            losses, statistics = self.map_tasks(
                one_task, support.inputs, support, query, seen, present, everything
            )
        if each_counts:
            until = self.multi_step_iterations
            losses = losses * step_weights(num_steps, self.iterations.to(losses), until)
        self._keep(statistics)
        self.iterations += ends
        return losses.sum(1).mean()

    def _query_loss(
        self,
        params: Params,
        support: Examples,
        seen: Bool[Tensor, " way"],
        query: Examples,
        present: Bool[Tensor, " way"] | None,
    ) -> Float[Tensor, ""]:
        state = FastWeights(params, seen, support.inputs, support.mask)
        outputs = self.predict_one_task(state, query.inputs, query.mask)
        return self.loss(mask_absent(outputs, present), query.targets, query.mask)

    def _statistics(self, params: Params, examples: Examples, way: int) -> Params:
        """Mean and mean square of what each BatchNorm layer sees of one task."""
        with torch.no_grad(), recorded_statistics() as seen, rows_statistics(examples.mask):
            self.network_outputs(params, examples.inputs, way)
        found: Params = {}
        for name, layer in self._norms.items():
            if layer not in seen:
                continue  # it is not used
            mean, variance = seen[layer]
            found[f"{name}.running_mean"] = mean
            found[f"{name}.running_var"] = variance + mean.square()
        return found

    def _keep(self, statistics: Params) -> None:
        """Move the averages toward the statistics (tasks, steps + 1, channels) of a meta-batch."""
        for name, layer in self._norms.items():
            if f"{name}.running_mean" not in statistics:
                continue
            mean = statistics[f"{name}.running_mean"].mean(0)
            variance = statistics[f"{name}.running_var"].mean(0) - mean.square()
            self.averages.value(f"{name}.running_mean").lerp_(mean, layer.momentum)
            self.averages.value(f"{name}.running_var").lerp_(variance, layer.momentum)

    def _of_norms(self, *parts: str) -> dict[str, Tensor]:
        return {
            f"{name}.{part}": getattr(layer, part)
            for name, layer in self._norms.items()
            for part in parts
        }


def step_weights(
    num_steps: int, iteration: Float[Tensor, ""], until: int
) -> Float[Tensor, " steps"]:
    """The weights of the query losses after steps 1, 2, ... num_steps; their sum is 1.

    Equal at first, those of the earlier steps fall linearly to .03 / num_steps, and are zero from
    iteration `until` on.
    """
    falling = (1 - iteration / until).clamp_min(0.03) / num_steps
    earlier = falling * (iteration < until)
    return torch.stack([earlier] * (num_steps - 1) + [1 - (num_steps - 1) * earlier])


class _PerStep(nn.Module):
    """Copies of some tensors of a network, one for each number of steps taken."""

    def __init__(self, tensors: Mapping[str, Tensor], count: int) -> None:
        super().__init__()
        self.names = tuple(tensors)
        for name, value in tensors.items():
            copies = value.detach().expand(count, *value.shape).clone()
            if isinstance(value, nn.Parameter):
                trained = value.requires_grad  # a frozen scale stays as it is
                self.register_parameter(_key(name), nn.Parameter(copies, trained))
            else:
                self.register_buffer(_key(name), copies)

    def value(self, name: str) -> Tensor:
        """All copies of a tensor, (count, *shape)."""
        return getattr(self, _key(name))

    def after(self, step: int) -> Params:
        """The copies for a number of steps taken; beyond the last, the last."""
        values = {name: self.value(name) for name in self.names}
        # A copy: under no_grad a view of a parameter still says that it requires a gradient.
        return {name: value[min(step, len(value) - 1)].clone() for name, value in values.items()}


def _key(name: str) -> str:
    return name.replace(".", "/")  # names of parameters have no dots
