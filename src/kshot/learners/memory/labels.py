"""Labels that a network which reads in turn is shown, and says: one number a class, or letters."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.losses import Loss, mask_absent

__all__ = ["Labels", "LetterLabels", "OneHotLabels"]


class Labels(nn.Module, ABC):
    """How the classes of a task are told to a network, and what its outputs say of them.

    Args:
        max_way: the most classes of a task.
        size: numbers of a label, and outputs of the network.
    """

    def __init__(self, max_way: int, size: int) -> None:
        super().__init__()
        self.max_way = max_way
        self.size = size

    @abstractmethod
    def codes(self, tasks: int, way: int, *, drawn: bool) -> Float[Tensor, "tasks way size"] | None:
        """The labels of the classes, the same always or drawn anew; None where there is no choice.

        Raises:
            ValueError: for more than `max_way` classes.
        """

    @abstractmethod
    def shown(
        self, targets: Float[Tensor, "tasks n way"], codes: Tensor | None
    ) -> Float[Tensor, "tasks n size"]:
        """What the network reads of target rows."""

    @abstractmethod
    def logits(
        self, outputs: Float[Tensor, "tasks n size"], way: int, codes: Tensor | None
    ) -> Float[Tensor, "tasks n way"]:
        """What outputs say of each class."""

    @abstractmethod
    def loss(
        self,
        loss: Loss,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
        present: Bool[Tensor, "tasks way"] | None,
        codes: Tensor | None,
    ) -> Float[Tensor, " tasks"]:
        """The loss of outputs."""

    @abstractmethod
    def right(
        self,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        present: Bool[Tensor, "tasks way"] | None,
        codes: Tensor | None,
    ) -> Bool[Tensor, "tasks n"]:
        """Whether what the network says is the label."""

    def check(self, way: int) -> None:
        """Raise a ValueError where a task has too many classes."""
        if way > self.max_way:
            raise ValueError(
                f"The learner was built for tasks of at most {self.max_way} classes, and these "
                f"have {way}: build it with a larger max_way."
            )


class OneHotLabels(Labels):
    """A number for each class, or the values of a regression.

    Args:
        max_way: the most classes of a task, or values.
    """

    def __init__(self, max_way: int) -> None:
        super().__init__(max_way, max_way)

    def codes(self, tasks: int, way: int, *, drawn: bool) -> None:
        """There is no choice: the first classes have the first numbers."""
        self.check(way)

    def shown(
        self, targets: Float[Tensor, "tasks n way"], codes: Tensor | None
    ) -> Float[Tensor, "tasks n size"]:
        """Targets with zeros after them."""
        missing = self.size - targets.shape[-1]
        return F.pad(targets, (0, missing)) if missing else targets

    def logits(
        self, outputs: Float[Tensor, "tasks n size"], way: int, codes: Tensor | None
    ) -> Float[Tensor, "tasks n way"]:
        """The first outputs."""
        return outputs[..., :way]

    def loss(
        self,
        loss: Loss,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
        present: Bool[Tensor, "tasks way"] | None,
        codes: Tensor | None,
    ) -> Float[Tensor, " tasks"]:
        """The loss of the task's classes."""
        logits = self.logits(outputs, targets.shape[-1], codes)
        return loss(mask_absent(logits, present), targets, mask)

    def right(
        self,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        present: Bool[Tensor, "tasks way"] | None,
        codes: Tensor | None,
    ) -> Bool[Tensor, "tasks n"]:
        """Whether the right class of the task has the largest logit."""
        logits = mask_absent(self.logits(outputs, targets.shape[-1], codes), present)
        return logits.argmax(-1) == targets.argmax(-1)


class LetterLabels(Labels):
    """Strings of five letters from a to e: 3,125 labels in 25 numbers.

    A label of many classes that stays short (Santoro et al., section 4.1). The network says each
    letter for itself; the logit of a class is the log-probability of its string. In training the
    strings of a task's classes are drawn anew, elsewhere they are always the same.

    Args:
        max_way: the most classes of a task.
    """

    LENGTH, ALPHABET = 5, 5
    table: Tensor

    def __init__(self, max_way: int) -> None:
        super().__init__(max_way, self.LENGTH * self.ALPHABET)
        num_strings = self.ALPHABET**self.LENGTH
        if max_way > num_strings:
            raise ValueError(f"There are {num_strings} strings of letters, not {max_way}.")
        fixed = torch.randperm(num_strings, generator=torch.Generator().manual_seed(0))
        self.register_buffer("table", self._spelled(fixed[:max_way]), persistent=False)

    def codes(self, tasks: int, way: int, *, drawn: bool) -> Float[Tensor, "tasks way size"]:
        """Strings of each task's classes, no two alike."""
        self.check(way)
        if not drawn:
            return self.table[:way].expand(tasks, -1, -1)
        strings = torch.rand(tasks, self.ALPHABET**self.LENGTH).topk(way).indices
        return self._spelled(strings).to(self.table)

    def shown(
        self, targets: Float[Tensor, "tasks n way"], codes: Tensor | None
    ) -> Float[Tensor, "tasks n size"]:
        """The strings of the classes, and nothing where there is no label."""
        assert codes is not None
        return targets @ codes

    def logits(
        self, outputs: Float[Tensor, "tasks n size"], way: int, codes: Tensor | None
    ) -> Float[Tensor, "tasks n way"]:
        """Log-probabilities of the classes' strings."""
        assert codes is not None
        letters = outputs.unflatten(-1, (self.LENGTH, self.ALPHABET)).log_softmax(-1)
        return letters.flatten(-2) @ codes.mT

    def loss(
        self,
        loss: Loss,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
        present: Bool[Tensor, "tasks way"] | None,
        codes: Tensor | None,
    ) -> Float[Tensor, " tasks"]:
        """The mean loss of the letters, which are all told apart from all others."""
        letters = [
            tensor.unflatten(-1, (self.LENGTH, self.ALPHABET)).flatten(1, 2)
            for tensor in (outputs, self.shown(targets.nan_to_num(), codes))
        ]
        each = None if mask is None else mask.repeat_interleave(self.LENGTH, 1)
        return loss(letters[0], letters[1], each)

    def right(
        self,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        present: Bool[Tensor, "tasks way"] | None,
        codes: Tensor | None,
    ) -> Bool[Tensor, "tasks n"]:
        """Whether every letter is right."""
        said, asked = (
            tensor.unflatten(-1, (self.LENGTH, self.ALPHABET)).argmax(-1)
            for tensor in (outputs, self.shown(targets, codes))
        )
        return (said == asked).all(-1)

    def _spelled(self, strings: Tensor) -> Float[Tensor, "*n size"]:
        """One-hot letters, one after the other, of strings given by number."""
        powers = self.ALPHABET ** torch.arange(self.LENGTH)
        letters = strings.unsqueeze(-1) // powers % self.ALPHABET
        return F.one_hot(letters, self.ALPHABET).flatten(-2).to(torch.get_default_dtype())
