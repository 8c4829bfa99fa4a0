"""Networks of open_clip: pictures and texts in one space."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from kshot.data.pictures import Fit, Resample
from kshot.encoders.picture_encoder import PictureEncoder
from kshot.encoders.sources import fetching, fitting, read_weights, require
from kshot.encoders.text_encoder import TextEncoder
from kshot.options import convert, nearest

__all__ = ["load_open_clip"]


def load_open_clip(
    name: str, weights: Path | None = None, sha256: str | None = None, device: str = "auto"
) -> PictureEncoder:
    """Both towers of a CLIP model; the encoder of pictures holds that of texts as `text`.

    Args:
        name: a model, or model/tag with the tag of published weights. With `weights`, the tag says
            how pictures are prepared.
        weights: a local checkpoint, as open_clip saves it.
        sha256: its digest.
        device: where the towers compute.
    """
    spec = f"open_clip:{name}"
    open_clip = require("open_clip", spec)
    model, _, tag = name.partition("/")
    if model not in open_clip.list_models():
        raise ValueError(
            f"open_clip has no model {model!r}.{nearest(model, open_clip.list_models())}"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag and tag not in tags:
        raise ValueError(f"{model} has no weights {tag!r}.{nearest(tag, tags)}")
    if weights is not None:
        read_weights(weights, sha256)  # open_clip's own words on a bad file help nobody
    elif not tag:
        raise ValueError(
            f"{spec} names no weights. Write open_clip:{model}/TAG with one of {', '.join(tags)}, "
            "or give a file as weights=PATH."
        )
    config = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    remedy = "give its checkpoint as weights=PATH"
    with fetching(spec, remedy) if weights is None else fitting(spec):
        clip = open_clip.create_model(
            model,
            pretrained=tag if weights is None else str(weights),
            pretrained_text=False,
            # open_clip only warns when the tag's activation is not the model's.
            force_quick_gelu=config.get("quick_gelu", False),
            force_preprocess_cfg=None if weights is None else config,
        )
    with fetching(spec, "use a model whose tokenizer open_clip carries, as ViT-B-32"):
        tokenizer = open_clip.get_tokenizer(model)
    visual = clip.visual
    clip.visual = nn.Identity()  # so that the tower of texts does not hold that of pictures
    preparation = visual.preprocess_cfg
    size = preparation["size"]
    height, width = (size, size) if isinstance(size, int) else size
    modes: dict[str, Fit] = {"shortest": "crop", "squash": "stretch"}
    if height != width or preparation["resize_mode"] not in modes:
        raise ValueError(
            f"{spec} reads pictures of {height} x {width} resized by "
            f"{preparation['resize_mode']!r}; expected square ones and one of "
            f"{', '.join(modes)}. Choose another model."
        )
    return PictureEncoder(
        _PictureTower(visual),
        size=height,
        mean=preparation["mean"],
        std=preparation["std"],
        resample=convert(preparation["interpolation"], Resample, f"The interpolation of {spec}"),
        fit=modes[preparation["resize_mode"]],
        spec=spec,
        text=_text_encoder(clip, tokenizer, device),
        device=device,
    )


class _PictureTower(nn.Module):
    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.normalize(self.visual(pictures), dim=1)


class _TextTower(nn.Module):
    def __init__(self, clip: nn.Module, length: int, padding: int) -> None:
        super().__init__()
        self.clip = clip
        self.length = length
        self.padding = padding

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        missing = self.length - tokens.shape[1]  # CLIP reads its padding and has a fixed length
        tokens = nn.functional.pad(tokens, (0, missing), value=self.padding)
        return self.clip.encode_text(tokens)  # pyright: ignore[reportCallIssue]


def _text_encoder(
    clip: nn.Module, tokenizer: Callable[[list[str]], Tensor], device: str
) -> TextEncoder:
    inner = getattr(tokenizer, "tokenizer", None)
    padding = getattr(inner, "pad_token_id", None) or 0
    length = tokenizer(["a"]).shape[1]

    def tokenize(texts: list[str]) -> dict[str, Tensor]:
        tokens = tokenizer(texts)
        # All up to the last one that is not padding, since 0 is the exclamation mark as well.
        mask = (tokens != padding).int().flip(1).cummax(1).values.flip(1)
        return {"tokens": tokens, "attention_mask": mask}

    return TextEncoder(
        _TextTower(clip, length, padding),
        tokenize,
        max_length=length,
        pooling=None,
        device=device,
    )
