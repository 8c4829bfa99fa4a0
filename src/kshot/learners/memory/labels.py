"""Labels that a network which reads in turn is shown, and says: one number a class, or letters."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.losses import Loss, mask_absent

__all__ = ["Labels", "LetterLabels", "OneHotLabels"]

Choices = tuple[Float[Tensor, "tasks n_parts choices"], Float[Tensor, "tasks n_parts choices"]]
"""Scores of what may be said in each part of a label, and what it should be."""


class Labels(nn.Module, ABC):
    """How the classes of a task are told to a network, and what its outputs say of them.

    A label has one or more parts, each of which is chosen for itself. `codes` are what `codes`
    gives: the labels of a task's classes.

    Args:
        max_way: the most classes of a task.
        length: parts of a label.
        size: numbers of a label, and outputs of the network.
    """

    def __init__(self, max_way: int, length: int, size: int) -> None:
        super().__init__()
        self.max_way = max_way
        self.length = length
        self.size = size

    @abstractmethod
    def codes(
        self, targets: Float[Tensor, "tasks n way"], *, drawn: bool = False
    ) -> Float[Tensor, "tasks way size"]:
        """The labels of the classes of target rows, one-hot in each part.

        Args:
            targets: which say how many tasks and classes there are.
            drawn: whether to draw them anew, where there is a choice.

        Raises:
            ValueError: for more than `max_way` classes.
        """

    @abstractmethod
    def logits(
        self, outputs: Float[Tensor, "tasks n size"], codes: Float[Tensor, "tasks way size"]
    ) -> Float[Tensor, "tasks n way"]:
        """What outputs say of each class."""

    @abstractmethod
    def choices(
        self,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        codes: Float[Tensor, "tasks way size"],
        present: Bool[Tensor, "tasks way"] | None,
    ) -> Choices:
        """What is chosen from, part by part."""

    def shown(
        self, targets: Float[Tensor, "tasks n way"], codes: Float[Tensor, "tasks way size"]
    ) -> Float[Tensor, "tasks n size"]:
        """What the network reads of target rows: nothing where there is no label."""
        return targets @ codes.to(targets.dtype)

    def loss(
        self,
        loss: Loss,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
        codes: Float[Tensor, "tasks way size"],
        present: Bool[Tensor, "tasks way"] | None,
    ) -> Float[Tensor, " tasks"]:
        """The mean loss of all parts."""
        scores, wanted = self.choices(outputs, targets, codes, present)
        return loss(
            scores, wanted, None if mask is None else mask.repeat_interleave(self.length, 1)
        )

    def right(
        self,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        codes: Float[Tensor, "tasks way size"],
        present: Bool[Tensor, "tasks way"] | None,
    ) -> Bool[Tensor, "tasks n"]:
        """Whether every part is."""
        scores, wanted = self.choices(outputs, targets, codes, present)
        found = scores.argmax(-1) == wanted.argmax(-1)
        return found.unflatten(1, (-1, self.length)).all(-1)

    def _check(self, way: int) -> None:
        if way > self.max_way:
            raise ValueError(
                f"The learner was built for tasks of at most {self.max_way} classes, and these "
                f"have {way}: build it with a larger max_way."
            )


class OneHotLabels(Labels):
    """A number for each class, or the values of a regression; one of the task's classes is chosen.

    Args:
        max_way: the most classes of a task, or values.
    """

    def __init__(self, max_way: int) -> None:
        super().__init__(max_way, 1, max_way)

    def codes(
        self, targets: Float[Tensor, "tasks n way"], *, drawn: bool = False
    ) -> Float[Tensor, "tasks way size"]:
        """There is no choice: the first classes have the first numbers."""
        tasks, _, way = targets.shape
        self._check(way)
        every = torch.eye(way, self.size, device=targets.device, dtype=targets.dtype)
        return every.expand(tasks, -1, -1)

    def logits(
        self, outputs: Float[Tensor, "tasks n size"], codes: Float[Tensor, "tasks way size"]
    ) -> Float[Tensor, "tasks n way"]:
        """The first outputs."""
        return outputs[..., : codes.shape[1]]

    def choices(
        self,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        codes: Float[Tensor, "tasks way size"],
        present: Bool[Tensor, "tasks way"] | None,
    ) -> Choices:
        """The classes of the task."""
        return mask_absent(self.logits(outputs, codes), present), targets


class LetterLabels(Labels):
    """Strings of five letters from a to e: 3,125 labels in 25 numbers.

    A label of many classes that stays short (Santoro et al., section 4.1). Each letter is chosen
    for itself, from all of them; the logit of a class is the log-probability of its string. In
    training the strings of a task's classes are drawn anew, elsewhere they are always the same.

    Args:
        max_way: the most classes of a task.
    """

    LENGTH, ALPHABET = 5, 5
    table: Tensor

    def __init__(self, max_way: int) -> None:
        super().__init__(max_way, self.LENGTH, self.LENGTH * self.ALPHABET)
        num_strings = self.ALPHABET**self.LENGTH
        if max_way > num_strings:
            raise ValueError(f"There are {num_strings} strings of letters, not {max_way}.")
        fixed = torch.randperm(num_strings, generator=torch.Generator().manual_seed(0))
        self.register_buffer("table", self._spelled(fixed[:max_way]))

    def codes(
        self, targets: Float[Tensor, "tasks n way"], *, drawn: bool = False
    ) -> Float[Tensor, "tasks way size"]:
        """Strings of each task's classes, no two alike."""
        tasks, _, way = targets.shape
        self._check(way)
        if not drawn:
            return self.table[:way].expand(tasks, -1, -1)
        strings = torch.rand(tasks, self.ALPHABET**self.LENGTH).topk(way).indices
        return self._spelled(strings).to(self.table)

    def logits(
        self, outputs: Float[Tensor, "tasks n size"], codes: Float[Tensor, "tasks way size"]
    ) -> Float[Tensor, "tasks n way"]:
        """Log-probabilities of the classes' strings."""
        letters = outputs.unflatten(-1, (self.LENGTH, self.ALPHABET)).log_softmax(-1)
        return letters.flatten(-2) @ codes.mT

    def choices(
        self,
        outputs: Float[Tensor, "tasks n size"],
        targets: Float[Tensor, "tasks n way"],
        codes: Float[Tensor, "tasks way size"],
        present: Bool[Tensor, "tasks way"] | None,
    ) -> Choices:
        """All letters, whichever classes there are."""
        letters = (self.LENGTH, self.ALPHABET)
        scores, wanted = (
            tensor.unflatten(-1, letters).flatten(1, 2)
            for tensor in (outputs, self.shown(targets, codes))
        )
        return scores, wanted

    def _spelled(self, strings: Tensor) -> Float[Tensor, "*n size"]:
        """One-hot letters, one after the other, of strings given by number."""
        powers = self.ALPHABET ** torch.arange(self.LENGTH)
        letters = strings.unsqueeze(-1) // powers % self.ALPHABET
        return F.one_hot(letters, self.ALPHABET).flatten(-2).to(torch.get_default_dtype())
