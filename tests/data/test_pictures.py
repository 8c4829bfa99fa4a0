"""Pictures of any kind become the same arrays."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kshot.data.files import FileTree
from kshot.data.pictures import PictureError, prepare_picture, prepare_pictures


def saved(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def gradient(width: int = 20, height: int = 20) -> Image.Image:
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.tile(row, (height, 1)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_read(mode: str, channels):
    steps = {"HSV": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "PA": "P"}
    image = gradient().convert(steps.get(mode, "L")).convert(mode)
    array = prepare_picture(image, size=20, channels=channels)
    assert (array.shape, array.dtype) == ((channels, 20, 20), np.uint8)
    if mode != "1":
        assert np.abs(array.astype(int) - np.asarray(gradient())).max() <= 2


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_pictures_keep_their_range(mode: str):
    values = np.asarray(gradient())
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(values.astype(np.int32) * 257)
    else:
        image = Image.fromarray(values.astype(np.float32) / 255)
    assert image.mode == mode
    assert np.array_equal(prepare_picture(image, size=20, channels=1)[0], values)


def test_a_sixteen_bit_png_file_is_read(tmp_path: Path):
    values = np.asarray(gradient()).astype(np.uint16) * 257
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.array_equal(
        prepare_picture(tmp_path / "deep.png", size=20, channels=1)[0], values // 257
    )


def test_transparent_is_white():
    image = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert (prepare_picture(image, size=10) == 255).all()
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([0, 0, 0] * 256)
    content = saved(palette, transparency=0)
    assert (prepare_picture(content, size=10, channels=1) == 255).all()


def test_the_camera_says_how_a_picture_is_turned(tmp_path: Path):
    image = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = prepare_picture(image, size=20, channels=1)
    turned = prepare_picture(tmp_path / "turned.png", size=20, channels=1)
    assert np.array_equal(turned, np.rot90(upright, -1, axes=(1, 2)))


def test_crop_keeps_the_central_square_and_stretch_everything():
    image = gradient(width=60, height=20)
    cropped = prepare_picture(image, size=20, channels=1)
    assert np.array_equal(cropped[0], np.asarray(image)[:, 20:40])
    stretched = prepare_picture(image, size=20, channels=1, fit="stretch")
    assert stretched.min() < 10 and stretched.max() > 245


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1), (3, 7)])
def test_any_shape_becomes_square(shape: tuple[int, int]):
    array = np.full(shape, 100, dtype=np.uint8)
    for fit in ("crop", "stretch"):
        assert (prepare_picture(array, size=28, fit=fit) == 100).all()


def test_invert_exchanges_ink_and_paper():
    plain = prepare_picture(gradient(), size=10, channels=1)
    assert np.array_equal(
        prepare_picture(gradient(), size=10, channels=1, invert=True), 255 - plain
    )


def test_bilevel_pictures_stay_bilevel_whatever_filter_is_asked_for():
    """Why a protocol that asks for Lanczos on pictures of one bit gets "nearest"."""
    noise = np.random.default_rng(0).integers(0, 2, (105, 105)).astype(bool)
    image = Image.fromarray(noise)
    assert image.mode == "1"
    lanczos = image.resize((28, 28), Image.Resampling.LANCZOS)
    nearest = image.resize((28, 28), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(lanczos), np.asarray(nearest))
    array = prepare_picture(image, size=28, channels=1, bilevel=True)
    assert np.array_equal(array[0], np.asarray(nearest) * np.uint8(255))
    assert set(np.unique(prepare_picture(gradient(), size=9, bilevel=True))) == {0, 255}


def test_quarter_turns_and_nearest_commute():
    """The order of turning and resizing does not matter: 105 is odd, so no pixel is a tie."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 2, (105, 105)).astype(bool))
    for size in (28, 20, 35, 84):
        small = np.asarray(image.resize((size, size), Image.Resampling.NEAREST))
        for turns in range(4):
            turned = image.rotate(90 * turns).resize((size, size), Image.Resampling.NEAREST)
            assert np.array_equal(np.asarray(turned), np.rot90(small, turns))


def test_all_ways_to_give_a_picture_agree(tmp_path: Path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    given_as = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        image,
        np.asarray(image),
        np.asarray(image) / 255,
    ]
    first, *others = [prepare_picture(picture, size=12) for picture in given_as]
    assert all(np.array_equal(first, other) for other in others)


def test_grey_arrays_may_have_a_last_dimension():
    array = np.asarray(gradient())
    assert np.array_equal(
        prepare_picture(array, size=9), prepare_picture(array[:, :, None], size=9)
    )
    mask = array > 100
    assert np.array_equal(
        prepare_picture(mask, size=9), prepare_picture(mask.astype(np.uint8) * 255, size=9)
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 20), np.uint8), r"\(height, width\[, channels\]\), not \(3, 20, 20\)"),
        (np.zeros(5, np.uint8), r"not \(5,\)"),
        (np.full((4, 4), 2.0), r"must be in \[0, 1\]"),
        (np.full((4, 4), np.nan), r"must be in \[0, 1\]"),
        (np.zeros((4, 4), np.int64), "not int64"),
        (np.zeros((0, 4), np.uint8), r"not \(0, 4\)"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray, message: str):
    with pytest.raises(PictureError, match=message):
        prepare_picture(array, size=28)


def test_an_unreadable_file_is_named(tmp_path: Path):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(
        PictureError, match=r"picture .*notes\.png cannot be read: .*Replace or remove"
    ):
        prepare_picture(path, size=28)
    with pytest.raises(PictureError, match="picture zip::a cannot be read"):
        prepare_picture(b"", size=28, name="zip::a")
    with pytest.raises(FileNotFoundError):
        prepare_picture(tmp_path / "missing.png", size=28)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_truncated_file_is_refused(form: str):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = saved(image, form)
    prepare_picture(content, size=28)
    with pytest.raises(PictureError, match="cannot be read"):
        prepare_picture(content[: len(content) // 2], size=28)


@given(
    place=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    form=st.sampled_from(["PNG", "JPEG", "GIF"]),
)
def test_a_damaged_file_gives_a_picture_or_a_picture_error(place: int, byte: int, form: str):
    content = bytearray(saved(gradient(), form))
    content[place % len(content)] = byte
    with contextlib.suppress(PictureError):
        assert prepare_picture(bytes(content), size=8).shape == (3, 8, 8)


def test_a_large_photograph_is_read_like_a_small_one():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((1600, 1600))
    large = prepare_picture(saved(smooth, "JPEG", quality=95), size=28).astype(int)
    assert np.abs(large - prepare_picture(smooth, size=28)).max() <= 6


def test_many_pictures_are_read_in_order_and_failures_reported(tmp_path: Path):
    names = [f"{number:03d}.png" for number in range(300)]
    for number, name in enumerate(names):
        Image.new("L", (4, 4), number % 256).save(tmp_path / name)
    (tmp_path / "007.png").write_bytes(b"broken")
    seen = []
    pictures, failures = prepare_pictures(
        FileTree(tmp_path),
        names,
        lambda done, total: seen.append((done, total)),
        size=2,
        channels=1,
    )
    assert pictures.shape == (300, 1, 2, 2)
    expected = np.arange(300) % 256
    expected[7] = 0
    assert np.array_equal(pictures[:, 0, 0, 0], expected)
    assert list(failures) == ["007.png"] and "007.png cannot be read" in failures["007.png"]
    assert seen[-1] == (300, 300) and len(seen) == 300
