"""Where networks come from: other packages, the network, files of weights."""

import hashlib
import importlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kshot.extras import install_command

__all__ = ["check_sha256", "fetching", "fill_weights", "fitting", "read_weights", "require"]


def require(package: str, spec: str) -> Any:
    """A package of an extra, imported when it is needed.

    Raises:
        ImportError: when it cannot be imported; says what to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{spec} needs the package {package}, which cannot be imported ({error}). Install it: "
            f"{install_command(package)}",
            name=package,
        ) from error


@contextmanager
def fetching(spec: str, remedy: str) -> Iterator[None]:
    """Explains what goes wrong while another package fetches a model.

    Raises:
        OSError: for any error inside: these packages raise many kinds without a network.
    """
    try:
        yield
    except ImportError:
        raise  # says what to install
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise OSError(
            f"{spec} cannot be loaded ({reason}). Where it is not on this machine yet, it has to "
            f"be downloaded, which needs a network. Without one, {remedy}."
        ) from error


def check_sha256(file: Path, sha256: str | None) -> None:
    """Compare a file's content with what is expected, before anything reads it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when its digest is another; names both.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}; expected a file of weights.")
    if sha256 is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256.lower():
        raise ValueError(
            f"{file} is another file than expected: its sha256 is {found}, expected {sha256}. "
            "Download it again, or correct the digest."
        )


def read_weights(file: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The state dict in a .safetensors, .pth or .pt file; no code in it is run.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when its digest is another, or it holds something else.
    """
    check_sha256(file, sha256)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Unpicklers of damaged files raise nearly anything: UnpicklingError, struct.error, ...
        # PyTorch's own words recommend to run the code in it.
        is_pickle = isinstance(error, pickle.UnpicklingError)
        reason = "damaged, or not only tensors" if is_pickle else repr(error)
        raise ValueError(
            f"{file} cannot be read as weights ({reason}). Expected a state dict, saved by "
            "safetensors or as torch.save(net.state_dict(), ...)."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # a training checkpoint
    if not isinstance(state, dict) or not all(isinstance(part, Tensor) for part in state.values()):
        raise ValueError(
            f"{file} holds no state dict. Save one with torch.save(net.state_dict(), ...)."
        )
    return {name.removeprefix("module."): part for name, part in state.items()}


def fill_weights(
    net: nn.Module, state: Mapping[str, Tensor], spec: str, without: Sequence[str]
) -> None:
    """Give a network its weights; those of the layers in `without` are left out.

    Raises:
        ValueError: when they are not this network's.
    """
    dropped = tuple(f"{name}." for name in without)
    kept = {name: part for name, part in state.items() if not name.startswith(dropped)}
    with fitting(spec):
        net.load_state_dict(kept)


@contextmanager
def fitting(spec: str) -> Iterator[None]:
    """Explains what goes wrong while a network is given the weights of a file.

    Raises:
        ValueError: for any error inside.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The file given as weights= does not fit {spec}: {reason}") from error
