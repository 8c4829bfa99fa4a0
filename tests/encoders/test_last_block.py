"""The end of a network, run alone: the same embeddings, the right weights, clear refusals."""

import numpy as np
import pytest
import torch
from torch import nn

from kshot.encoders import PictureEncoder, TextEncoder
from kshot.encoders.last_block import LastBlock, last_block_name

WEIGHTS = ("weight", "bias")
GREY = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


class Residual(nn.Module):
    """A block of two layers around which its input passes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(size, size, 3, padding=1), nn.BatchNorm2d(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Pictures(nn.Module):
    """A residual network with code of its own between its modules, and a shared activation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.act = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU()
        self.position = nn.Parameter(torch.randn(1, 4, 7, 7))
        self.stages = nn.Sequential(
            nn.Sequential(Residual(4), Residual(4)), nn.Sequential(Residual(4), Residual(4))
        )
        self.norm = nn.GroupNorm(2, 4)
        self.projection = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x)) + self.position
        x = self.act(self.norm(self.stages(x))).mean((2, 3))
        return x @ self.projection


class Layer(nn.Module):
    """Attention among a text's tokens, padding left out."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(size, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))

    def forward(self, x: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        return x + self.mlp(x)


class Texts(nn.Module):
    """A small transformer, to whose layers nothing is said of padding where there is none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(31, 6)
        self.layers = nn.ModuleList(Layer(6) for _ in range(3))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.table(input_ids)
        padding = None if bool(attention_mask.all()) else attention_mask == 0
        for layer in self.layers:
            x = layer(x, padding=padding)
        return x


def tokens(texts: list[str]) -> dict[str, torch.Tensor]:
    ids = [torch.tensor([1 + len(word) % 30 for word in text.split()]) for text in texts]
    rows = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return {"input_ids": rows, "attention_mask": (rows > 0).long()}


def pictures(n: int) -> list[np.ndarray]:
    shape = (n, 20, 16, 3)
    return list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


SENTENCES = ["a bb ccc", "dddd", "ee f ggg hhhh iiiii", "j kk", "lll", "m nn oooo"]


def picture_encoder() -> PictureEncoder:
    return PictureEncoder(Pictures(), size=16, device="cpu", **GREY)


def text_encoder() -> TextEncoder:
    return TextEncoder(Texts(), tokens, max_length=16, device="cpu")


CASES = [(picture_encoder, pictures(6)), (text_encoder, SENTENCES)]


@pytest.mark.parametrize(("make", "inputs"), CASES)
@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_the_end_gives_the_encoders_embeddings(make, inputs, n: int):
    encoder = make()
    end = LastBlock(encoder)
    found = end.embed(end.activations(inputs[:n]))
    np.testing.assert_allclose(found, encoder.encode(inputs[:n]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "inputs"), CASES)
def test_any_rows_of_activations_can_be_embedded(make, inputs):
    encoder = make()
    end = LastBlock(encoder)
    activations = end.activations(inputs)
    rows = {name: tensor[[4, 0, 4]] for name, tensor in activations.items()}
    expected = encoder.encode([inputs[4], inputs[0], inputs[4]])
    np.testing.assert_allclose(end.embed(rows), expected, rtol=1e-5, atol=1e-6)


def test_its_weights_are_those_of_the_last_block_and_of_what_follows():
    end = LastBlock(picture_encoder())
    end.activations(pictures(3))
    assert end.name == "stages.1.1"
    block = {f"stages.1.1.{layer}.{kind}" for layer in ("conv", "norm") for kind in WEIGHTS}
    assert set(end.parameters) == block | {"norm.weight", "norm.bias", "projection"}


def test_a_block_can_be_named():
    encoder = picture_encoder()
    end = LastBlock(encoder, "stages.1")
    found = end.embed(end.activations(pictures(3)))
    np.testing.assert_allclose(found, encoder.encode(pictures(3)), rtol=1e-5, atol=1e-6)
    assert "stages.1.0.conv.weight" in end.parameters


@pytest.mark.parametrize(("make", "inputs"), CASES)
def test_other_weights_change_embeddings_as_in_the_whole_network(make, inputs):
    encoder = make()
    end = LastBlock(encoder)
    activations = end.activations(inputs)
    torch.manual_seed(1)
    weights = {name: w + 0.1 * torch.randn_like(w) for name, w in end.parameters.items()}
    found = end.embed(activations, weights)
    net = Pictures() if isinstance(encoder, PictureEncoder) else Texts()
    net.load_state_dict({**net.state_dict(), **weights})
    other = (
        PictureEncoder(net, size=16, device="cpu", **GREY)
        if isinstance(encoder, PictureEncoder)
        else TextEncoder(net, tokens, max_length=16, device="cpu")
    )
    np.testing.assert_allclose(found, other.encode(inputs), rtol=1e-4, atol=1e-5)
    untouched = end.embed(activations)
    np.testing.assert_allclose(untouched, encoder.encode(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "inputs"), CASES)
def test_gradients_pass_to_the_weights(make, inputs):
    end = LastBlock(make())
    activations = end.activations(inputs)
    weights = {name: w.clone().requires_grad_() for name, w in end.parameters.items()}
    slopes = torch.autograd.grad(
        end.embed(activations, weights).square().sum(), list(weights.values())
    )
    assert all(slope.isfinite().all() for slope in slopes)
    assert any(slope.abs().max() > 0 for slope in slopes)


def test_the_encoder_stays_as_it_is():
    encoder = picture_encoder()
    before, fingerprint = encoder.encode(pictures(3)), encoder.fingerprint
    end = LastBlock(encoder)
    end.embed(end.activations(pictures(3)), {"projection": torch.zeros(4, 5)})
    del encoder.fingerprint
    assert encoder.fingerprint == fingerprint
    np.testing.assert_array_equal(encoder.encode(pictures(3)), before)


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()), "2"),
        (Pictures(), "stages.1.1"),
        (Texts(), "layers.2"),
        (
            nn.ModuleList(
                [nn.ModuleList([Residual(2)]), nn.ModuleList([Residual(2), Residual(2)])]
            ),
            "1.1",
        ),
    ],
)
def test_the_last_block_is_found(net: nn.Module, name: str):
    assert last_block_name(net) == name


def test_what_has_no_last_block_is_refused():
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ValueError, match=r"repeats no block.*name one of 0, 1"):
        LastBlock(PictureEncoder(pooled, size=16, device="cpu", **GREY))
    function = PictureEncoder(
        lambda x: x.mean((2, 3)), size=16, device="cpu", fingerprint="means", **GREY
    )
    with pytest.raises(ValueError, match="is none"):
        LastBlock(function)
    with pytest.raises(ValueError, match=r"no module 'stages\.9'"):
        LastBlock(picture_encoder(), "stages.9")


class Around(Pictures):
    """Something of the front also goes past the last block."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        front = self.act(self.stem(x)) + self.position
        return (self.stages(front) + front).mean((2, 3)) @ self.projection


class Unused(Pictures):
    """Its last block is never called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.stem(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("net", "reason"), [(Around(), "other embeddings come out"), (Unused(), "does not use")]
)
def test_what_cannot_be_cut_is_refused(net: nn.Module, reason: str):
    end = LastBlock(PictureEncoder(net, size=16, device="cpu", **GREY))
    with pytest.raises(ValueError, match=reason):
        end.activations(pictures(3))
