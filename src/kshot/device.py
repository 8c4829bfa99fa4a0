"""Where to compute."""

import os

import torch

__all__ = ["choose_device"]


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes a GPU when there is one, each process its own.

    Raises:
        ValueError: for a name of none, and for a GPU that PyTorch does not see.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"device={name!r} is no device that PyTorch knows; use 'auto', 'cpu' or 'cuda'."
        ) from None
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if index >= count:
        seen = "no GPU; use device='cpu'" if count == 0 else f"{count}, counted from 0"
        raise ValueError(f"device={name!r} but this PyTorch sees {seen}.")
    return torch.device("cuda", index)
