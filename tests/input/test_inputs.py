"""Inputs: what is seen of a file, a drawing and a picture of the world."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from diffsweep.core.problems import BadInput
from diffsweep.input.drawing import Drawing
from diffsweep.input.file import File
from diffsweep.input.world import World
from diffsweep.sweep.cell import freeze
from diffsweep.sweep.parts import build, names
from diffsweep.world import named

RNG = np.random.default_rng(3)
PICTURE = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(folder: Path, image: Image.Image | np.ndarray, name: str = "picture.png", **settings: Any) -> str:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(folder / name, **settings)
    return str(folder / name)


@pytest.mark.parametrize("name", [name for name in names("input") if name != "none"])
@pytest.mark.parametrize("size", [8, 15, 32])
def test_every_input_gives_8_bit_colours_of_the_size_asked_for(tmp_path: Path, name: str, size: int) -> None:
    part = build("input", {"name": name, **({"path": saved(tmp_path, PICTURE)} if name == "file" else {})})
    pixels = part.pixels(size)
    assert pixels.dtype == np.uint8 and pixels.shape == (size, size, 3)
    np.testing.assert_array_equal(part.pixels(size), pixels)
    assert part.caption() is None or part.caption().strip()


def test_a_technique_that_needs_a_picture_says_so_where_there_is_none(config: Callable[..., Any]) -> None:
    with pytest.raises(BadInput, match=r"^input=none: this technique needs a picture"):
        freeze(config(technique="image_to_image", input="none"), {})
    assert freeze(config(technique="text_to_image", input="none"), {}).pixels is None


# -- files -----------------------------------------------------------------------------------------------------------
def test_a_file_of_the_right_size_is_taken_as_it_is(tmp_path: Path) -> None:
    np.testing.assert_array_equal(File(saved(tmp_path, PICTURE)).pixels(16), PICTURE)


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_square_is_cropped(tmp_path: Path, wide: bool) -> None:
    framed = np.pad(PICTURE, [(0, 0), (5, 5), (0, 0)] if wide else [(5, 5), (0, 0), (0, 0)])
    np.testing.assert_array_equal(File(saved(tmp_path, framed)).pixels(16), PICTURE)


@pytest.mark.parametrize("side", [5, 64])
def test_a_file_of_another_size_is_resized_by_lanczos(tmp_path: Path, side: int) -> None:
    """A ramp, which a symmetric filter leaves a ramp away from the border."""
    ramp = np.tile(np.linspace(20, 220, 32)[:, None, None], (1, 32, 3)).round().astype(np.uint8)
    pixels = File(saved(tmp_path, ramp)).pixels(side)
    centres = (np.arange(side) + 0.5) * 32 / side - 0.5
    inner = (centres > 3 * max(1, 32 / side)) & (centres < 31 - 3 * max(1, 32 / side))
    np.testing.assert_allclose(pixels[inner, 0, 0], 20 + 200 * centres[inner] / 31, atol=1.5)
    # what tells Lanczos from smoother filters: it overshoots at an edge
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[:, 16:] = 200
    assert File(saved(tmp_path, edge)).pixels(64).max() > 205


# what the eight EXIF orientations ask of a viewer
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = File(saved(tmp_path, PICTURE, exif=exif)).pixels(16)
    np.testing.assert_array_equal(pixels, TURNS[orientation](PICTURE))


def test_transparent_parts_are_shown_on_white(tmp_path: Path) -> None:
    alpha = GREY[..., None]
    path = saved(tmp_path, np.concatenate([PICTURE, alpha], axis=2))
    share = alpha / 255
    np.testing.assert_allclose(File(path).pixels(16), share * PICTURE + (1 - share) * 255, atol=1)


def test_a_grey_file_has_three_equal_channels(tmp_path: Path) -> None:
    np.testing.assert_array_equal(File(saved(tmp_path, GREY)).pixels(16), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_file_is_scaled_to_8_bits_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = RNG.integers(0, 2**16, (16, 16), dtype=np.uint16)
    pixels = File(saved(tmp_path, deep, f"picture.{suffix}")).pixels(16)
    np.testing.assert_allclose(pixels, np.repeat(deep[..., None] / 257, 3, axis=2), atol=0.5 + 1e-6)


def test_a_file_of_floating_point_numbers_has_no_known_range_and_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, (GREY / 255).astype(np.float32), "picture.tif")
    with pytest.raises(BadInput, match=f"^path={path}: "):
        File(path).pixels(16)


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_file_shows_its_colours(tmp_path: Path, transparent: bool) -> None:
    image = Image.fromarray(GREY % 3).convert("P")
    image.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 255])
    colours = np.array([[255, 0, 0], [0, 128, 0], [255, 255, 255] if transparent else [0, 0, 255]])
    path = saved(tmp_path, image, **({"transparency": b"\xff\xff\x00"} if transparent else {}))
    np.testing.assert_array_equal(File(path).pixels(16), colours[GREY % 3])


def test_a_file_under_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, PICTURE)
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(File("~/picture.png").pixels(16), PICTURE)


def damaged(kind: str) -> bytes | None:
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(whole, "PNG")
    data = whole.getvalue()
    last = data.rindex(b"IDAT")
    return {
        "missing": None,
        "empty": b"",
        "text": b"a text",
        "cut": data[: len(data) // 2],
        "cut in the header": data[:20],
        "broken chunk": data[:last] + b"\x01" + data[last + 1 :],
        "broken bits": data[:60] + bytes(40) + data[100:],
    }[kind]


KINDS = ["missing", "empty", "text", "cut", "cut in the header", "broken chunk", "broken bits"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_read_is_refused_by_its_key(
    config: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "picture.png"
    if (content := damaged(kind)) is not None:
        path.write_bytes(content)
    message = "no such file" if kind == "missing" else "not a readable image"
    with pytest.raises(BadInput, match=rf"^input\.path={path}: {message}"):
        freeze(config(technique="image_to_image", input="file", input__path=str(path)), {})


@pytest.mark.parametrize(
    "path, message",
    [
        ("", r"input\.path: a file is needed"),
        (".", r"input\.path=\.: not a readable image"),
        ("~nobody-of-that-name/picture.png", r"input\.path=~nobody-of-that-name/picture\.png: "),
    ],
)
def test_a_path_that_is_no_file_is_refused_by_its_key(config: Callable[..., Any], path: str, message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        freeze(config(technique="image_to_image", input="file", input__path=path), {})


# -- drawings --------------------------------------------------------------------------------------------------------
def rgb(colour: str) -> list[int]:
    return list(ImageColor.getrgb(colour)[:3])


def test_the_drawing_that_is_shipped_is_a_house_in_the_sun() -> None:
    pixels = Drawing().pixels(64)
    there = {(0.1, 0.1): "skyblue", (0.2, 0.8): "gold", (0.9, 0.1): "forestgreen", (0.5, 0.3): "peru"}
    there |= {(0.35, 0.45): "firebrick", (0.7, 0.45): "saddlebrown"}
    for (y, x), colour in there.items():
        assert pixels[int(y * 64), int(x * 64)].tolist() == rgb(colour), colour


def test_later_shapes_lie_on_earlier_ones_and_the_background_below_all() -> None:
    circle, square = "circle 0.5 0.5 0.3 red", "rectangle 0.25 0.25 0.75 0.75 blue"
    assert Drawing((circle, square), "white").pixels(32)[16, 16].tolist() == rgb("blue")
    assert Drawing((square, circle), "white").pixels(32)[16, 16].tolist() == rgb("red")
    assert Drawing((), "teal").pixels(4).tolist() == [[rgb("teal")] * 4] * 4


@pytest.mark.parametrize(
    "shape, area",
    [
        ("circle 0.5 0.45 0.3 black", math.pi * 0.3**2),
        ("rectangle 0.1 0.3 0.5 0.9 black", 0.4 * 0.6),
        ("rectangle 0.5 0.9 0.1 0.3 black", 0.4 * 0.6),
        ("line 0.1 0.5 0.9 0.5 0.2 black", 0.8 * 0.2),
        ("line 0.2 0.2 0.8 0.8 0.1 black", math.hypot(0.6, 0.6) * 0.1),
        ("polygon 0.1 0.1 0.9 0.1 0.1 0.9 black", 0.8 * 0.8 / 2),
        ("circle 1 0 0.5 black", math.pi * 0.5**2 / 4),
    ],
)
def test_a_shape_has_its_area_in_shares_of_the_picture(shape: str, area: float) -> None:
    assert 1 - Drawing((shape,), "white").pixels(256).mean() / 255 == pytest.approx(area, rel=0.02)


def test_the_edges_of_shapes_are_smooth() -> None:
    levels = np.unique(Drawing(("circle 0.5 0.5 0.3 black",), "white").pixels(32))
    assert levels.min() == 0 and levels.max() == 255 and len(levels) > 6


def test_a_drawing_is_the_same_scene_at_every_size() -> None:
    large = Image.fromarray(Drawing().pixels(128)).resize((32, 32), Image.Resampling.BOX)
    difference = np.abs(np.asarray(large, float) - Drawing().pixels(32))
    assert difference.mean() < 3


@pytest.mark.parametrize("colour", ["gold", "#ffd700", "rgb(255,215,0)", "hsl(50.6,100%,50%)"])
def test_a_colour_is_written_as_in_css(colour: str) -> None:
    assert Drawing((f"rectangle 0 0 1 1 {colour}",)).pixels(8)[4, 4].tolist() == [255, 215, 0]


@pytest.mark.parametrize(
    "shape, message",
    [
        ("", "the kinds are circle, rectangle, line, polygon"),
        ("cirle 0.5 0.5 0.1 red", "the kinds are circle"),
        ("circle", "numbers, then a colour, are needed after circle"),
        ("circle 0.5 x 0.1 red", "numbers, then a colour, are needed after circle"),
        ("circle 0.5 0.5 red", "circle takes 3 numbers"),
        ("rectangle 0 0 1 red", "rectangle takes 4 numbers"),
        ("line 0 0 1 1 red", "line takes 5 numbers"),
        ("polygon 0 0 1 1 red", "polygon takes three or more pairs of numbers"),
        ("polygon 0 0 1 1 1 0 1 red", "polygon takes three or more pairs of numbers"),
        ("circle 0.5 0.5 0.1 rot", "shapes=rot: not a colour that CSS knows"),
        ("circle 0.5 0.5 0.1", "shapes=0.1: not a colour"),
        ("circle 0.5 0.5 -0.1 red", "circle"),
        ("line 0 0 1 1 -0.1 red", "line"),
        ("circle nan 0.5 0.1 red", "circle"),
        ("rectangle 0 0 inf 1 red", "rectangle"),
    ],
)
def test_a_shape_that_cannot_be_drawn_is_refused_when_the_cell_is_frozen(shape: str, message: str) -> None:
    with pytest.raises(BadInput, match=r"^input\.shapes") as refused:
        build("input", {"name": "drawing", "shapes": ["circle 0.1 0.1 0.1 red", shape]})
    assert message in str(refused.value)


def test_a_background_that_is_no_colour_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^input\.background=skyblu: not a colour"):
        build("input", {"name": "drawing", "background": "skyblu"})


# -- the world -------------------------------------------------------------------------------------------------------
def test_a_picture_of_the_world_comes_with_its_caption() -> None:
    part, picture = World("old man/sketch/3"), named("old man/sketch/3", 24)
    np.testing.assert_array_equal(part.pixels(24), picture.pixels)
    assert part.caption() == picture.caption and "old man" in picture.caption


def test_a_caption_is_the_prompt_unless_one_is_given(config: Callable[..., Any]) -> None:
    settings = config(technique="image_to_image", input="world", input__id="skull/photo/1")
    assert freeze(settings, {}).prompt == named("skull/photo/1").caption
    assert freeze({**settings, "prompt": "a red dog"}, {}).prompt == "a red dog"


@pytest.mark.parametrize(
    "id, message",
    [
        ("dgo/photo/0", "no subject 'dgo': there are .*; did you mean 'dog'"),
        ("red cirle/photo/0", "no subject 'red cirle': there are .*; did you mean 'red circle'"),
        ("dog/phto/0", "no style 'phto': there are .*; did you mean 'photo'"),
        ("dog/photo", "an id is subject/style/number, as in 'dog/photo/0'"),
        ("dog/photo/-1", "an id is subject/style/number"),
        ("dog/photo/training-0", "an id is subject/style/number"),
        ("", "an id is subject/style/number"),
    ],
)
def test_an_id_that_is_not_known_is_refused_with_a_hint(id: str, message: str) -> None:
    with pytest.raises(BadInput, match=f"^input.id={id}: .*{message}"):
        build("input", {"name": "world", "id": id})
