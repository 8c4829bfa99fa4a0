"""Fine-tuning the last block of an encoder on a handful of examples: slow, sometimes better."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kshot.data.cache import progress_bar
from kshot.encoders import Encoder
from kshot.encoders.last_block import Activations, LastBlock
from kshot.episodes import Examples, Inputs, map_tensors
from kshot.heads.choice import DEFAULT, HEADS, LAST_BLOCK, FittedHead, in_span, judged
from kshot.heads.held_out import adapted
from kshot.learner import MetaLearner
from kshot.learners.baselines.linear_heads import LinearHead, LogisticHead
from kshot.losses import counted_rows

__all__ = ["LastBlockTuning", "TunedBlock", "fit_last_block"]


class TunedBlock(NamedTuple):
    """The end of an encoder and the head on it, tuned on each task.

    Attributes:
        weights: of the end, by name: (tasks, ...).
        head: on its embeddings.
    """

    weights: dict[str, Tensor]
    head: LinearHead

    def as_tensors(self) -> dict[str, Tensor]:
        """All of them by name, as a file holds them."""
        ends = {f"end.{name}": weight for name, weight in self.weights.items()}
        return ends | {f"head.{name}": part for name, part in self.head._asdict().items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "TunedBlock":
        """What `as_tensors` gave."""
        weights = {
            name.removeprefix("end."): weight
            for name, weight in tensors.items()
            if name.startswith("end.")
        }
        return cls(weights, LinearHead(tensors["head.weight"], tensors["head.bias"]))


class LastBlockTuning(MetaLearner[TunedBlock]):
    """Fit logistic regression to an encoder's embeddings, then tune its last block along with it.

    A head that starts where the frozen embeddings already are told apart does not tear up what the
    block knows, as a random one would. What is tuned is the last block and all that follows it; the
    rest of the encoder stays as it is, so its output is computed once (`LastBlock.activations`).

    Args:
        end: of the encoder. Inputs are its activations.
        num_steps: of Adam, each on the whole support set.
        lr: of Adam; both were chosen on Omniglot's background characters
            (`python -m studies last_block val characters`).

    Example:
        >>> from kshot.encoders import PictureEncoder
        >>> net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
        >>> encoder = PictureEncoder(net, size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> pictures = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8).numpy()
        >>> head = LastBlockTuning(LastBlock(encoder)).eval()
        >>> activations = head.end.activations(list(pictures))
        >>> inputs = map_tensors(lambda part: part.unsqueeze(0), activations)
        >>> targets = torch.eye(2).repeat(1, 2, 1)
        >>> head.predict(head.adapt(Examples(inputs, targets)), inputs).shape
        torch.Size([1, 4, 2])

    Reference:
        The order, head first, is that of: Fine-Tuning can Distort Pretrained Features and
        Underperform Out-of-Distribution. ICLR 2022. https://arxiv.org/abs/2202.10054
    """

    def __init__(self, end: LastBlock, *, num_steps: int = 30, lr: float = 3e-4) -> None:
        super().__init__()
        self.end = end
        self.num_steps, self.lr = num_steps, lr
        self.linear = LogisticHead(nn.Identity())

    def adapt(self, support: Examples) -> TunedBlock:
        """Tune the end on each task, one after the other."""
        inputs, targets, mask = support
        counted = counted_rows(targets, mask, self.loss.kind)
        tuned = [
            self._tune(_of_task(inputs, task, rows), targets[task, rows])
            for task, rows in enumerate(counted)
        ]
        return map_tensors(lambda *parts: torch.stack(parts), *tuned)

    def predict(
        self, state: TunedBlock, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Logits of each task's head on the embeddings of its own end."""
        logits = []
        for task in range(len(state.head.bias)):
            weights, head = map_tensors(lambda part, task=task: part[task], state)
            logits.append(_logits(head, self.end.embed(_of_task(inputs, task), weights)))
        return torch.stack(logits)

    def _tune(self, activations: Activations, targets: Float[Tensor, "n way"]) -> TunedBlock:
        """One task's end and head."""
        with torch.no_grad():
            embeddings = self.end.embed(activations)
        start = self.linear.summarize(embeddings[None], targets[None], None)
        head = LinearHead(*(part[0].clone().requires_grad_() for part in start))
        weights = {
            name: weight.clone().requires_grad_() for name, weight in self.end.parameters.items()
        }
        optimizer = torch.optim.Adam([*weights.values(), *head], self.lr)
        with torch.enable_grad():
            for _ in range(self.num_steps):
                logits = _logits(head, self.end.embed(activations, weights))
                optimizer.zero_grad()
                F.cross_entropy(logits, targets).backward()
                optimizer.step()
        return map_tensors(Tensor.detach, TunedBlock(weights, head))


def fit_last_block(
    encoder: Encoder,
    inputs: Sequence[Any],
    embeddings: Float[Tensor, "n dim"],
    columns: Int[Tensor, " n"],
    *,
    seed: int = 0,
) -> FittedHead:
    """Tune the last block of an encoder on a support set; the head it starts from is judged, too.

    Cross-validation tunes it once for each fold and deals the examples out only once, for this
    is slow.

    Args:
        encoder: of pictures or texts.
        inputs: the support set, as the encoder reads it.
        embeddings: of them.
        columns: (n,) the class of each, 0 .. way - 1.
        seed: of the cross-validation.

    Raises:
        ValueError: when the encoder has no last block that can be cut off.
    """
    start, tuning = HEADS[DEFAULT]().eval(), LastBlockTuning(LastBlock(encoder)).eval()
    usual, _ = judged(DEFAULT, start, in_span(embeddings), columns, None, seed=seed)
    with progress_bar("Tuning the last block, and once for each fold"):
        activations = tuning.end.activations(inputs)
        chosen, _ = judged(
            LAST_BLOCK, tuning, activations, columns, None, seed=seed, most_repeats=1
        )
        state = adapted(tuning, activations, columns)
    reason = "as asked"
    if (usual.log_loss or 0.0) < (chosen.log_loss or 0.0):
        reason += f", though {DEFAULT}, which it starts from, is better in cross-validation"
    return FittedHead(tuning, state, chosen, (usual, chosen), reason)


def _logits(head: LinearHead, embeddings: Float[Tensor, "n dim"]) -> Float[Tensor, "n way"]:
    return F.normalize(embeddings, dim=-1) @ head.weight + head.bias


def _of_task(inputs: Inputs, task: int, rows: Tensor | slice = slice(None)) -> Activations:
    """The activations of one task."""
    if not isinstance(inputs, Mapping):
        raise ValueError("Tuning the last block reads activations, from LastBlock.activations.")
    return {name: tensor[task][rows] for name, tensor in inputs.items()}
