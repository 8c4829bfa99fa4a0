"""Networks of Hugging Face and sentence-transformers that read sentences."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kshot.encoders.sources import check_sha256, fetching, require
from kshot.encoders.text_encoder import Pooling, TextEncoder

__all__ = ["load_hugging_face", "load_sentence_transformers"]


def load_hugging_face(
    name: str, weights: Path | None = None, sha256: str | None = None, device: str = "auto"
) -> TextEncoder:
    """A transformer whose tokens are pooled, scaled to length 1.

    They are pooled as `1_Pooling/config.json` of the model says, else by their mean.

    Args:
        name: a model of the hub, or a local folder.
        weights: not known here: a model is a folder.
        sha256: the digest of `model.safetensors` in a local folder.
        device: where it computes.
    """
    spec = f"hf:{name}"
    name = _checked_folder(spec, name, weights, sha256)
    transformers = require("transformers", spec)
    with fetching(spec, "copy its folder here and write hf:FOLDER"):
        pooling = _read_json(name, "1_Pooling/config.json")
        limits = _read_json(name, "sentence_bert_config.json")
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        net = transformers.AutoModel.from_pretrained(name).float()
    # Tokenizers without a limit name a huge one.
    named = limits.get("max_seq_length") or tokenizer.model_max_length
    max_length = named if named < 1e6 else 512

    def tokenize(texts: list[str]) -> dict[str, Any]:
        options = {"padding": True, "truncation": True, "max_length": max_length}
        return dict(tokenizer(texts, return_tensors="pt", **options))

    return TextEncoder(
        net,
        tokenize,
        max_length=max_length,
        pooling=_pooling(pooling, spec),
        spec=spec,
        device=device,
    )


def load_sentence_transformers(
    name: str, weights: Path | None = None, sha256: str | None = None, device: str = "auto"
) -> TextEncoder:
    """A model of sentence-transformers with all of its own modules and its default prompt.

    Args:
        name: a model of the hub, or a local folder.
        weights: not known here: a model is a folder.
        sha256: the digest of `model.safetensors` in a local folder.
        device: where it computes.
    """
    spec = f"sentence-transformers:{name}"
    name = _checked_folder(spec, name, weights, sha256)
    package = require("sentence_transformers", spec)
    with fetching(spec, "copy its folder here and write sentence-transformers:FOLDER"):
        # It would choose a device of its own.
        model = package.SentenceTransformer(name, device="cpu").float()
    prompt = model.prompts.get(model.default_prompt_name)
    return TextEncoder(
        _SentenceEmbedding(model),
        lambda texts: dict(model.preprocess(texts, prompt=prompt)),
        max_length=model.max_seq_length or 512,
        pooling=None,
        normalize=False,
        spec=spec,
        device=device,
    )


class _SentenceEmbedding(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **features: Any) -> Tensor:
        return self.model(features)["sentence_embedding"]


def _checked_folder(spec: str, name: str, weights: Path | None, sha256: str | None) -> str:
    """The folder of a local model, or the name of one of the hub."""
    if weights is not None:
        kind = spec.partition(":")[0]
        raise ValueError(f"{spec} takes no weights=. Write {kind}:FOLDER with the model's folder.")
    if sha256 is not None:
        check_sha256(Path(name).expanduser() / "model.safetensors", sha256)
    local = Path(name).expanduser()
    return str(local) if local.is_dir() else name


def _read_json(name: str, file: str) -> dict[str, Any]:
    """A file of a model, {} where the model has none."""
    if Path(name).is_dir():
        path = Path(name) / file
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return json.loads(Path(hf_hub_download(name, file)).read_text(encoding="utf-8"))
    except LocalEntryNotFoundError:
        raise  # the hub cannot be asked
    except EntryNotFoundError:
        return {}


def _pooling(config: dict[str, Any], spec: str) -> Pooling:
    """The pooling of 1_Pooling/config.json: newer files name it, older ones have flags."""
    named = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    flags = [name for name, on in config.items() if name.startswith("pooling_mode_") and on]
    mode = config.get("pooling_mode") or "+".join(named.get(flag, flag) for flag in flags)
    if mode not in ("", "mean", "cls"):
        raise ValueError(
            f"{spec} pools tokens by {mode!r}; hf: knows mean and cls. Use sentence-transformers:."
        )
    return "cls" if mode == "cls" else "mean"
