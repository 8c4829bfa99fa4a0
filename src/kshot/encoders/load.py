"""Encoders by name."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

from kshot.device import choose_device
from kshot.encoders.clip import load_open_clip
from kshot.encoders.encoder import Encoder
from kshot.encoders.language import load_hugging_face, load_sentence_transformers
from kshot.encoders.vision import load_timm, load_torchvision
from kshot.options import nearest

__all__ = ["load_encoder"]

_Load = Callable[[str, Path | None, str | None, str], Encoder]


def load_encoder(
    spec: str | Encoder,
    *,
    weights: Path | str | None = None,
    sha256: str | None = None,
    device: str = "auto",
) -> Encoder:
    """The encoder of a name, with the preprocessing that belongs to it.

    | name | reads | needs |
    | --- | --- | --- |
    | `timm:<name>`, as timm:resnet50 | pictures | the extra vision |
    | `torchvision:<name>` | pictures | the extra vision |
    | `open_clip:<name>/<tag>`, as open_clip:ViT-B-32/openai | pictures, names | the extra vision |
    | `hf:<model or folder>` | texts | the extra text |
    | `sentence-transformers:<model or folder>` | texts | the extra text |
    | `python:<module>:<function>` | as its function says | runs that module's code |

    Args:
        spec: the name. An encoder is handed back as it is. The function of `python:` is called
            without arguments, or with `device` when one is chosen, and returns an encoder.
        weights: for timm, torchvision and open_clip, a local file of weights (.safetensors, .pth,
            .pt) to take instead of a download. No code in it is run.
        sha256: what the digest of the file of weights must be, or, for a local folder of `hf:` or
            `sentence-transformers:`, that of its model.safetensors; compared before it is read.
        device: where it computes: "auto" takes a GPU when there is one.

    Raises:
        ValueError: when there is no such encoder or device, or the weights are others.
        ImportError: when a package is missing; says what to install.
        OSError: when the model is not on this machine and cannot be downloaded.

    Example:
        >>> encoder = load_encoder("timm:resnet50")  # doctest: +SKIP
        >>> encoder.encode(["cat.jpg", "dog.jpg"]).shape  # doctest: +SKIP
        (2, 2048)
    """
    if isinstance(spec, Encoder):
        if weights is not None or sha256 is not None:
            raise ValueError(
                "An encoder has its weights already: weights= and sha256= need a name."
            )
        return spec
    choose_device(device)  # a wrong one is said before anything is downloaded
    kind, colon, name = spec.partition(":")
    if not (colon and name):
        raise ValueError(f"An encoder is named KIND:NAME, as timm:resnet50, not {spec!r}.")
    if kind not in _KINDS:
        raise ValueError(f"Unknown kind of encoder {kind!r} in {spec!r}.{nearest(kind, _KINDS)}")
    file = None if weights is None else Path(weights)
    return _KINDS[kind](name, file, sha256, device)


def _load_python(name: str, weights: Path | None, sha256: str | None, device: str) -> Encoder:
    """What a function of the user's own returns."""
    spec = f"python:{name}"
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"Expected python:MODULE:FUNCTION, not {spec!r}.")
    if weights is not None or sha256 is not None:
        raise ValueError(f"{spec} takes no weights= and no sha256=: its function loads them.")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ImportError(
            f"{spec} is not found ({error}). The module must be on Python's path: start from its "
            "folder with python -m kshot, or set PYTHONPATH."
        ) from error
    if device != "auto" and "device" not in inspect.signature(build).parameters:
        raise ValueError(
            f"{spec} takes no device={device!r}: give its function a parameter `device`, or leave "
            "the device to it."
        )
    encoder = build() if device == "auto" else build(device=device)
    if not isinstance(encoder, Encoder):
        raise ValueError(f"{spec} returned a {type(encoder).__name__}, expected an Encoder.")
    encoder.spec = spec
    return encoder


_KINDS: dict[str, _Load] = {
    "timm": load_timm,
    "torchvision": load_torchvision,
    "open_clip": load_open_clip,
    "hf": load_hugging_face,
    "sentence-transformers": load_sentence_transformers,
    "python": _load_python,
}
