"""Training on several processes, started by torchrun: each has a share of every meta-batch.

Gradients are averaged once an outer step: networks of this size do not need it to be done while
they are computed, as DistributedDataParallel does.
"""

import contextlib
import importlib
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["Processes", "process_group"]

_TRAININGS = itertools.count()
"""Numbers the trainings of this process, alike in all processes."""


class Processes(NamedTuple):
    """The place of this process among all that train together."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, episodes: range) -> range:
        """This process's share of a meta-batch."""
        if len(episodes) % self.count:
            raise ValueError(
                f"A meta-batch of {len(episodes)} episodes cannot be shared by {self.count} "
                "processes. Make meta_batch_size a multiple of the number of processes."
            )
        return episodes[self.rank :: self.count]

    def average_gradients(self, network: nn.Module) -> None:
        """Put the mean over all processes in the place of each gradient."""
        self._average(weight.grad for weight in network.parameters() if weight.grad is not None)

    def average_buffers(self, network: nn.Module) -> None:
        """Put the mean over all processes in the place of each buffer of real numbers.

        What a process has averaged from its share of the tasks would be lost with it otherwise.
        """
        self._average(buffer for buffer in network.buffers() if buffer.is_floating_point())

    def mean(self, value: Tensor) -> Tensor:
        """The mean of numbers over all processes; theirs are overwritten."""
        if self.count > 1:
            dist.all_reduce(value)
        return value / self.count

    def _average(self, tensors: Iterable[Tensor]) -> None:
        """Put means in the place of tensors, which are sent as one."""
        if self.count == 1 or not (places := list(tensors)):
            return
        flat = torch.cat([place.flatten() for place in places])
        means = self.mean(flat).split([place.numel() for place in places])
        for place, mean in zip(places, means, strict=True):
            place.copy_(mean.view_as(place))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def agree(self, flag: bool, device: torch.device) -> bool:
        """What the first process says, on every process."""
        if self.count == 1:
            return flag
        said = torch.tensor(flag, device=device)
        dist.broadcast(said, src=0)
        return bool(said)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started; outside torchrun there is one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # nccl's barrier runs on the current GPU
    owned = not dist.is_initialized()
    if owned:
        # Its functions have the group that there is when they are imported, as by any optimizer, as
        # a default: they would keep it, and a process that ends with the group's threads aborts.
        importlib.import_module("torch.distributed.nn.functional")
        from torch.distributed.rendezvous import rendezvous  # not every build of PyTorch has it

        backend = "nccl" if device.type == "cuda" else "gloo"
        # A store of its own: in a common one, a second training would find the first's addresses.
        store, rank, count = next(rendezvous("env://"))
        store = dist.PrefixStore(f"kshot/{next(_TRAININGS)}", store)  # pyright: ignore
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        # A process that leaves while another still receives would break that one's connection.
        dist.barrier()
    finally:
        if owned:
            dist.destroy_process_group()
