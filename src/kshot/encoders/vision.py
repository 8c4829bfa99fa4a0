"""Networks of timm and torchvision, each with the preprocessing that it was trained with."""

from pathlib import Path

from torch import nn

from kshot.data.pictures import Fit, Resample
from kshot.encoders.picture_encoder import PictureEncoder
from kshot.encoders.sources import fetching, fill_weights, read_weights, require
from kshot.options import convert, nearest

__all__ = ["load_timm", "load_torchvision"]

_REMEDY = "give the file of its weights as weights=PATH"


def load_timm(
    name: str, weights: Path | None = None, sha256: str | None = None, device: str = "auto"
) -> PictureEncoder:
    """The features of a timm model before its classifier, prepared by its data config."""
    spec = f"timm:{name}"
    timm = require("timm", spec)
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
    if weights is None:
        with fetching(spec, _REMEDY):
            net = timm.create_model(name, pretrained=True, num_classes=0)
    else:
        net = timm.create_model(name, pretrained=False, num_classes=0)
        classifier = net.pretrained_cfg.get("classifier") or ()
        without = [classifier] if isinstance(classifier, str) else list(classifier)
        fill_weights(net, read_weights(weights, sha256), spec, without)
    config = timm.data.resolve_data_config(model=net)
    channels, height, width = config["input_size"]
    modes: dict[str, Fit] = {"center": "crop", "squash": "stretch"}
    if height != width or channels not in (1, 3) or config["crop_mode"] not in modes:
        raise ValueError(
            f"{spec} reads pictures of {config['input_size']} with crop_mode "
            f"{config['crop_mode']!r}; expected square ones of 1 or 3 channels and one of "
            f"{', '.join(modes)}. Choose another model."
        )
    return PictureEncoder(
        net,
        size=height,
        mean=config["mean"],
        std=config["std"],
        crop=config["crop_pct"],
        resample=convert(config["interpolation"], Resample, f"The interpolation of {spec}"),
        fit=modes[config["crop_mode"]],
        channels=channels,
        spec=spec,
        device=device,
    )


def load_torchvision(
    name: str, weights: Path | None = None, sha256: str | None = None, device: str = "auto"
) -> PictureEncoder:
    """The features of a torchvision classifier, prepared as its default weights are."""
    spec = f"torchvision:{name}"
    models = require("torchvision", spec).models
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}.{nearest(name, known)}")
    default = models.get_model_weights(name).DEFAULT
    if weights is None:
        with fetching(spec, _REMEDY):
            net = models.get_model(name, weights=default)
        _remove_classifier(net, spec)
    else:
        # Two need to be told what torchvision knows of its own weights.
        told = {"aux_logits": False, "transform_input": True, "init_weights": False}
        options = told if name in ("googlenet", "inception_v3") else {}
        net = models.get_model(name, weights=None, **options)
        classifier = _remove_classifier(net, spec)
        without = [classifier, "aux1", "aux2", "AuxLogits"] if options else [classifier]
        fill_weights(net, read_weights(weights, sha256), spec, without)
    transforms = default.transforms()
    [size], [resized] = transforms.crop_size, transforms.resize_size
    return PictureEncoder(
        net,
        size=size,
        mean=transforms.mean,
        std=transforms.std,
        crop=size / resized,
        resample=convert(transforms.interpolation.value, Resample, f"The interpolation of {spec}"),
        spec=spec,
        device=device,
    )


def _remove_classifier(net: nn.Module, spec: str) -> str:
    """Let a network end before its last linear layer; returns that layer's name."""
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError(f"{spec} has no linear classifier to remove. Choose another model.")
    parent, _, child = layers[-1].rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return layers[-1]
