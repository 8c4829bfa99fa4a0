"""Encoders of pictures and texts: what goes in, what comes out, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kshot.data.pictures import PictureError, prepare_picture
from kshot.encoders import PictureEncoder, TextEncoder

GREY = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )


def picture(seed: int, height: int = 40, width: int = 30) -> np.ndarray:
    shape = (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png", **options)
    return stream.getvalue()


class Words:
    """A tokenizer: a word is a token, its number its length; keeps the shapes it was asked for."""

    def __init__(self, max_length: int, left: bool = False) -> None:
        self.max_length = max_length
        self.left = left

    def __call__(self, texts: list[str]) -> dict[str, torch.Tensor]:
        ids = [[1 + len(word) % 30 for word in text.split()][: self.max_length] for text in texts]
        longest = max(map(len, ids))
        pads = [[0] * (longest - len(row)) for row in ids]
        rows = [p + r if self.left else r + p for p, r in zip(pads, ids, strict=True)]
        ids = torch.tensor(rows)
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class Table(nn.Module):
    """A network of texts that keeps the shapes it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(31, 5)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.table(input_ids) * (1 + attention_mask.cumsum(1).unsqueeze(2))


def texts(count: int) -> list[str]:
    draw = np.random.default_rng(1)
    return [
        " ".join("x" * int(n) for n in draw.integers(1, 25, draw.integers(1, 12)))
        for _ in range(count)
    ]


# Pictures


def test_pictures_equal_a_plain_loop_one_at_a_time():
    net = small_net()
    encoder = PictureEncoder(net, size=16, **GREY)
    inputs = [picture(seed) for seed in range(11)]
    net.eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in GREY.values())
    expected = []
    for one in inputs:
        pixels = torch.from_numpy(prepare_picture(one, size=16, resample="bicubic"))
        with torch.no_grad():
            expected.append(net(((pixels / 255 - mean) / std)[None]).flatten())
    for batch_size in (1, 4, 64):
        embeddings = encoder.encode(inputs, batch_size=batch_size)
        assert embeddings.dtype == np.float32
        assert np.allclose(embeddings, torch.stack(expected).numpy(), atol=1e-6)


def test_no_inputs_give_no_rows():
    encoder = PictureEncoder(small_net(), size=16, **GREY)
    assert encoder.encode([]).shape == (0, 6)
    assert TextEncoder(Table(), Words(9), max_length=9).encode([]).shape == (0, 5)


def test_every_way_to_give_a_picture_is_the_same(tmp_path: Path):
    pixels = picture(0)
    image = Image.fromarray(pixels)
    (tmp_path / "a.png").write_bytes(png(image))
    encoder = PictureEncoder(small_net(), size=16, **GREY)
    kinds = [pixels, image, png(image), tmp_path / "a.png", str(tmp_path / "a.png")]
    embeddings = encoder.encode(kinds)
    assert np.allclose(embeddings, embeddings[0], atol=1e-6)
    assert encoder.content(kinds[2]) == encoder.content(kinds[3]) == encoder.content(kinds[4])


def test_rotated_grey_transparent_and_deep_pictures_are_read():
    encoder = PictureEncoder(small_net(), size=16, **GREY)
    pixels = picture(0, 30, 30)
    grey = pixels[:, :, 0]
    rotation = Image.Exif()
    rotation[0x0112] = 6  # to be turned right
    turned = png(Image.fromarray(np.rot90(pixels)), exif=rotation)
    alpha = np.dstack([pixels, np.full((30, 30), 255, np.uint8)])
    alpha[:10, :, 3] = 0
    on_white = np.where(alpha[:, :, 3:] == 0, 255, pixels).astype(np.uint8)
    deep = png(Image.fromarray(grey.astype(np.uint16) * 257))
    pairs = [
        (turned, pixels),
        (png(Image.fromarray(grey)), np.dstack([grey] * 3)),
        (png(Image.fromarray(alpha)), on_white),
        (deep, np.dstack([grey] * 3)),
    ]
    for read, plain in pairs:
        both = encoder.encode([read, plain])
        assert np.allclose(both[0], both[1], atol=1e-5)


def test_the_center_of_a_larger_preparation_is_kept():
    seen = []

    def net(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        return batch.mean((2, 3))

    encoder = PictureEncoder(net, size=14, mean=(0.0,) * 3, std=(1.0,) * 3, crop=0.875)
    encoder.encode([picture(0)])
    whole = prepare_picture(picture(0), size=16, resample="bicubic")
    assert np.allclose(seen[-1][0] * 255, whole[:, 1:15, 1:15])


def test_a_module_of_the_user_stays_as_it_is():
    net = small_net().train()
    encoder = PictureEncoder(net, size=16, **GREY)
    before = encoder.encode([picture(0)])
    assert net.training and all(weight.requires_grad for weight in net.parameters())
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(1)
    assert (encoder.encode([picture(0)]) == before).all()


def test_an_unreadable_picture_is_named_with_its_place(tmp_path: Path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    encoder = PictureEncoder(small_net(), size=16, **GREY)
    inputs = [picture(0), tmp_path / "notes.jpg", tmp_path / "gone.png", picture(1), b"junk"]
    with pytest.raises(PictureError, match=r"Input 1 .*notes\.jpg cannot be read.*: 2, 4\."):
        encoder.encode(inputs, batch_size=64)
    for batch_size in (1, 64):
        failures: dict[int, str] = {}
        told: list[int] = []
        embeddings = encoder.encode(
            inputs,
            batch_size=batch_size,
            failures=failures,
            progress=lambda done, total, told=told: told.append(done),
        )
        assert sorted(failures) == [1, 2, 4]
        assert "no picture file" in failures[2] and "(bytes)" in failures[4]
        assert np.allclose(embeddings[[0, 3]], encoder.encode([picture(0), picture(1)]), atol=1e-6)
        assert np.isnan(embeddings[[1, 2, 4]]).all()
        assert told[-1] == 5


def test_an_embedding_that_is_not_finite_is_an_error_of_its_input():
    def net(batch: torch.Tensor) -> torch.Tensor:
        return batch.mean((2, 3)).sqrt()

    encoder = PictureEncoder(net, size=8, mean=(0.1,) * 3, std=(1.0,) * 3)
    inputs = [np.full((9, 9, 3), value, np.uint8) for value in (200, 0, 100)]
    with pytest.raises(ValueError, match=r"Input 1 .*not finite"):
        encoder.encode(inputs)
    failures: dict[int, str] = {}
    assert np.isfinite(encoder.encode(inputs, failures=failures)[[0, 2]]).all()
    assert list(failures) == [1]


def test_contents_are_equal_when_pictures_are():
    encoder = PictureEncoder(small_net(), size=16, **GREY)
    image = Image.fromarray(picture(0))
    palette = image.convert("P")
    other = palette.copy()
    other.putpalette(bytes(range(256)) * 3)
    rotated = image.copy()
    rotated.getexif()[0x0112] = 6
    items = [picture(0), picture(1), picture(0).reshape(30, 40, 3), image, palette, other, rotated]
    assert len({encoder.content(item) for item in items}) == len(items)
    assert encoder.content(image) == encoder.content(image.copy())
    assert encoder.content(picture(0)) == encoder.content(picture(0))


def test_the_fingerprint_tells_all_that_matters():
    def build(net: nn.Module | None = None, **options) -> PictureEncoder:
        return PictureEncoder(net or small_net(), **{"size": 16, **GREY, **options})

    changed = small_net()
    with torch.no_grad():
        changed[0].weight[0, 0, 0, 0] += 1e-6
    activation = small_net()
    activation[2] = nn.GELU()
    variants = [
        build(),
        build(changed),
        build(activation),
        build(size=17),
        build(crop=0.9),
        build(resample="bilinear"),
        build(fit="stretch"),
        build(mean=(0.5, 0.5, 0.5)),
    ]
    assert len({encoder.fingerprint for encoder in variants}) == len(variants)
    assert build().fingerprint == build().fingerprint


def test_a_callable_needs_a_name_before_it_is_cached():
    def net(batch: torch.Tensor) -> torch.Tensor:
        return batch.mean((2, 3))

    encoder = PictureEncoder(net, size=8, **GREY)
    assert encoder.encode([picture(0)]).shape == (1, 3)
    with pytest.raises(ValueError, match="Give fingerprint='"):
        _ = encoder.fingerprint
    named = [PictureEncoder(net, size=8, **GREY, fingerprint=name) for name in ("a", "a", "b")]
    assert named[0].fingerprint == named[1].fingerprint != named[2].fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5,)}, "3 numbers"),
        ({"crop": 1.5}, "0 < crop <= 1"),
        ({"std": (1.0, 0.0, 1.0)}, "std > 0"),
        ({"net": nn.Conv2d(3, 4, 3)}, r"\(n, dim\).*not torch.Size\(\[1, 4, 14, 14\]\)"),
        ({"text": TextEncoder(Table(), Words(9), max_length=9)}, "texts into 6 numbers"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(options, message):
    options = {"net": small_net(), "size": 16, **GREY, **options}
    with pytest.raises(ValueError, match=message):
        PictureEncoder(options.pop("net"), **options)


# Texts


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_texts_equal_a_plain_loop_one_at_a_time(pooling, left):
    net = Table()
    encoder = TextEncoder(net, Words(20, left), max_length=20, pooling=pooling, normalize=False)
    inputs = texts(60)
    expected = []
    for text in inputs:
        hidden = net(**Words(12)([text]))[0].detach()
        expected.append(hidden.mean(0) if pooling == "mean" else hidden[0])
    for batch_size in (1, 3, 64):
        embeddings = encoder.encode(inputs, batch_size=batch_size)
        assert np.allclose(embeddings, torch.stack(expected).numpy(), atol=1e-4)


def test_embeddings_have_length_1_and_networks_may_pool():
    def net(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return torch.stack([input_ids.sum(1), attention_mask.sum(1)], 1).float()

    encoder = TextEncoder(net, Words(20), max_length=20, pooling=None)
    lengths = np.linalg.norm(encoder.encode(texts(7)), axis=1)
    assert np.allclose(lengths, 1)


def test_batches_hold_no_padding_that_all_share():
    cells = []

    def net(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        cells.append((input_ids.numel(), int(attention_mask.sum())))
        return input_ids.unsqueeze(2).float()

    encoder = TextEncoder(net, Words(20), max_length=20)
    cells.clear()
    encoder.encode(texts(400), batch_size=20)
    whole, used = map(sum, zip(*cells, strict=True))
    assert used / whole > 0.9


def test_empty_texts_are_named_and_the_others_embedded():
    encoder = TextEncoder(Table(), Words(9), max_length=9)
    inputs = ["a b", "", "c", "  ", float("nan")]
    with pytest.raises(ValueError, match=r"Input 1 .*empty.*cannot be embedded: 3, 4\."):
        encoder.encode(inputs)
    failures: dict[int, str] = {}
    embeddings = encoder.encode(inputs, failures=failures)
    assert sorted(failures) == [1, 3, 4] and "got float" in failures[4]
    assert np.isfinite(embeddings[[0, 2]]).all() and np.isnan(embeddings[[1, 3, 4]]).all()


def test_one_warning_says_how_many_texts_are_cut():
    encoder = TextEncoder(Table(), Words(4), max_length=4)
    with pytest.warns(UserWarning, match="2 of 5 texts fill the 4 tokens") as warned:
        encoder.encode(["a", "b c d e f", "g", "h i j k l m", "n"], batch_size=1)
    assert len(warned) == 1


def test_names_are_embedded_where_texts_are_read():
    text = TextEncoder(Table(), Words(9), max_length=9)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    assert PictureEncoder(net, size=8, **GREY).encode_names(["cat"]) is None
    with_text = PictureEncoder(net, size=8, **GREY, text=text)
    assert np.array_equal(with_text.encode_names(["cat"]), text.encode(["cat"]))
    assert np.array_equal(text.encode_names(["cat"]), text.encode(["cat"]))


def test_fingerprints_of_texts_know_the_tokenizer_and_the_pooling():
    def build(tokenize=None, net=None, **options) -> TextEncoder:
        options = {"max_length": 9, **options}
        return TextEncoder(net or Table(), tokenize or Words(9), **options)

    other = Table()
    other.table.weight.data[3, 3] += 1
    shorter = build(Words(7), max_length=7)
    variants = [build(), shorter, build(pooling="cls"), build(normalize=False), build(net=other)]
    lower = build(lambda texts: Words(9)([text.replace("o", "oo") for text in texts]))
    assert len({encoder.fingerprint for encoder in [*variants, lower]}) == 6
    assert build().fingerprint == build().fingerprint


def test_what_is_no_list_or_no_batch_is_refused():
    encoder = TextEncoder(Table(), Words(9), max_length=9)
    with pytest.raises(ValueError, match="Expected a list of inputs, got one str"):
        encoder.encode("a sentence")
    with pytest.raises(ValueError, match="at least 1, not 0"):
        encoder.encode(["a"], batch_size=0)


def test_a_network_or_tokenizer_of_another_form_is_refused():
    with pytest.raises(ValueError, match=r"attention_mask.*\['ids'\]"):
        TextEncoder(Table(), lambda texts: {"ids": torch.ones(1, 1)}, max_length=9)
    with pytest.raises(ValueError, match=r"pooling=None the network must give \(n, dim\)"):
        TextEncoder(Table(), Words(9), max_length=9, pooling=None)
