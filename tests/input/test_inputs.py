"""Inputs: what is seen of a file, a drawing and a picture of the world."""

from __future__ import annotations

import io
import math
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms, ImageColor, ImageOps

from diffsweep import imagefile
from diffsweep.core.problems import BadInput
from diffsweep.input.drawing import Drawing
from diffsweep.input.file import PictureFile
from diffsweep.input.picture import Picture
from diffsweep.input.world import World
from diffsweep.runner.freeze import freeze
from diffsweep.runner.parts import build, names
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
    np.testing.assert_array_equal(PictureFile(saved(tmp_path, PICTURE)).pixels(16), PICTURE)


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_square_is_cropped(tmp_path: Path, wide: bool) -> None:
    framed = np.pad(PICTURE, [(0, 0), (5, 5), (0, 0)] if wide else [(5, 5), (0, 0), (0, 0)])
    file = PictureFile(saved(tmp_path, framed))
    np.testing.assert_array_equal(file.pixels(16), PICTURE)
    size = "26 x 16" if wide else "16 x 26"
    assert file.notes(16) == (f"{Path(file.path).name} is {size}: its centre square is taken for square pictures",)
    assert PictureFile(saved(tmp_path, PICTURE)).notes(16) == ()


@pytest.mark.parametrize("side", [5, 64])
def test_a_file_of_another_size_is_resized_by_lanczos(tmp_path: Path, side: int) -> None:
    """A ramp, which a symmetric filter leaves a ramp away from the border."""
    ramp = np.tile(np.linspace(20, 220, 32)[:, None, None], (1, 32, 3)).round().astype(np.uint8)
    pixels = PictureFile(saved(tmp_path, ramp)).pixels(side)
    centres = (np.arange(side) + 0.5) * 32 / side - 0.5
    inner = (centres > 3 * max(1, 32 / side)) & (centres < 31 - 3 * max(1, 32 / side))
    np.testing.assert_allclose(pixels[inner, 0, 0], 20 + 200 * centres[inner] / 31, atol=1.5)
    # what tells Lanczos from smoother filters: it overshoots at an edge
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[:, 16:] = 200
    assert PictureFile(saved(tmp_path, edge)).pixels(64).max() > 205


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
    pixels = PictureFile(saved(tmp_path, PICTURE, exif=exif)).pixels(16)
    np.testing.assert_array_equal(pixels, TURNS[orientation](PICTURE))


def test_transparent_parts_are_shown_on_white(tmp_path: Path) -> None:
    alpha = GREY[..., None]
    path = saved(tmp_path, np.concatenate([PICTURE, alpha], axis=2))
    share = alpha / 255
    np.testing.assert_allclose(PictureFile(path).pixels(16), share * PICTURE + (1 - share) * 255, atol=1)


def test_a_grey_file_has_three_equal_channels(tmp_path: Path) -> None:
    np.testing.assert_array_equal(PictureFile(saved(tmp_path, GREY)).pixels(16), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_file_is_scaled_to_8_bits_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = RNG.integers(0, 2**16, (16, 16), dtype=np.uint16)
    pixels = PictureFile(saved(tmp_path, deep, f"picture.{suffix}")).pixels(16)
    np.testing.assert_allclose(pixels, np.repeat(deep[..., None] / 257, 3, axis=2), atol=0.5 + 1e-6)


def test_a_file_of_floating_point_numbers_has_no_known_range_and_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, (GREY / 255).astype(np.float32), "picture.tif")
    with pytest.raises(BadInput, match=f"^path={path}: "):
        PictureFile(path).pixels(16)


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_file_shows_its_colours(tmp_path: Path, transparent: bool) -> None:
    image = Image.fromarray(GREY % 3).convert("P")
    image.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 255])
    colours = np.array([[255, 0, 0], [0, 128, 0], [255, 255, 255] if transparent else [0, 0, 255]])
    path = saved(tmp_path, image, **({"transparency": b"\xff\xff\x00"} if transparent else {}))
    np.testing.assert_array_equal(PictureFile(path).pixels(16), colours[GREY % 3])


def test_a_file_under_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, PICTURE)
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(PictureFile("~/picture.png").pixels(16), PICTURE)


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
    settings = config(technique="image_to_image", prompt="auto", input="world", input__id="skull/photo/1")
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


# -- files as people have them ---------------------------------------------------------------------------------------
def profile(columns: np.ndarray, gamma: float, name: str = "wide") -> bytes:
    """An ICC profile (version 2.1) of three primaries, as XYZ under D50, and a power law."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = name.encode() + b"\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = [(b"desc", described), (b"cprt", b"text" + bytes(4) + b"none\0"), (b"wtpt", b"XYZ " + bytes(4) + white())]
    for k, colour in enumerate((b"r", b"g", b"b")):
        tags.append((colour + b"XYZ", b"XYZ " + bytes(4) + b"".join(map(fixed, columns[:, k]))))
        tags.append((colour + b"TRC", curve))
    table, data, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags:
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(data), len(content))
        data += content
    head = struct.pack(">I4sI4s4s4s", offset + len(data), bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white() + bytes(48)
    return head + table + data


def white() -> bytes:
    return b"".join(struct.pack(">i", round(v * 65536)) for v in D50)


D50 = (0.9642, 1.0, 0.8249)
# Display P3 and sRGB as XYZ under D50, from their specifications, adapted by Bradford
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def test_colours_are_read_as_the_profile_says(tmp_path: Path) -> None:
    """Against the formulas: to light by the power law, to sRGB's primaries, and back by its curve."""
    path = saved(tmp_path, PICTURE, icc_profile=profile(P3, 2.2))
    light = (np.linalg.inv(SRGB) @ P3 @ ((PICTURE / 255) ** 2.1992).reshape(-1, 3).T).T.clip(0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    pixels = PictureFile(path).pixels(16).astype(float)
    assert np.abs(pixels - PICTURE).max() > 20  # else there is nothing to see
    np.testing.assert_allclose(pixels.reshape(-1, 3), 255 * curve, atol=1.5)
    assert PictureFile(path).notes(16) == ()


def test_a_picture_that_is_srgb_stays_as_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path, PICTURE, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    np.testing.assert_array_equal(PictureFile(path).pixels(16), PICTURE)


@pytest.mark.parametrize("name", ["sRGB-elle-V2-g10.icc", "linear"])
def test_light_of_srgbs_primaries_is_shown_as_srgb_whatever_the_profile_is_called(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, PICTURE, icc_profile=profile(SRGB, 1.0, name))
    light = PICTURE / 255
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(PictureFile(path).pixels(16), 255 * curve, atol=2)


@pytest.mark.parametrize("content", [b"nonsense", profile(P3, 2.2)[:200]])
def test_a_profile_that_cannot_be_used_is_told(tmp_path: Path, content: bytes) -> None:
    path = saved(tmp_path, PICTURE, icc_profile=content)
    np.testing.assert_array_equal(PictureFile(path).pixels(16), PICTURE)
    (note,) = PictureFile(path).notes(16)
    assert note.startswith("picture.png has a colour profile that cannot be used")


DEEP = [("i4", 255), ("i4", 65535), ("u4", 2**32 - 1), ("f4", 1)]


@pytest.mark.parametrize("kind, white", DEEP)
def test_numbers_without_a_known_white_are_asked_about_and_read_with_it(tmp_path: Path, kind: str, white: int) -> None:
    values = (GREY / 255 * white).astype(kind)
    path = str(tmp_path / "picture.tif")
    tifffile.imwrite(path, values)
    asked = rf"^path={path}: .* have no known white; input.white={white} says it"
    with pytest.raises(BadInput, match=asked):
        PictureFile(path).pixels(16)
    np.testing.assert_allclose(PictureFile(path, white=float(white)).pixels(16)[..., 0], GREY, atol=1)


def test_numbers_below_0_are_given_no_advice_that_fails(tmp_path: Path) -> None:
    path = str(tmp_path / "picture.tif")
    tifffile.imwrite(path, (GREY / 255 - 1).astype("f4"))
    for white in ("auto", 1.0):
        with pytest.raises(BadInput, match=r"no value is above 0, the largest is ") as refused:
            PictureFile(path, white=white).pixels(16)
        assert "white=" not in str(refused.value)


def test_a_picture_that_is_transparent_all_over_is_told(tmp_path: Path) -> None:
    told = "picture.png is transparent all over: it is read as white"
    for alpha, notes in ((0, (told,)), (1, ())):
        part = PictureFile(saved(tmp_path, Image.new("RGBA", (16, 16), (9, 9, 9, alpha))))
        assert part.notes(16) == notes
        (tmp_path / "picture.png").unlink()


def test_12_bits_in_16_are_told_and_read_with_their_white(tmp_path: Path) -> None:
    path = saved(tmp_path, (GREY / 255 * 4095).astype(np.uint16))
    assert PictureFile(path).pixels(16).max() == 16
    (note,) = PictureFile(path).notes(16)
    assert note == "picture.png is nearly black, its brightest value 4095 of 65535; input.white=4095 brightens it"
    np.testing.assert_allclose(PictureFile(path, white=4095.0).pixels(16)[..., 0], GREY, atol=1)
    assert PictureFile(path, white=4095.0).notes(16) == ()


def test_a_white_is_not_taken_for_a_file_that_has_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^white=4095: .* has 8 bits a channel"):
        PictureFile(saved(tmp_path, PICTURE), white=4095.0).pixels(16)


def test_of_an_animated_file_one_frame_is_read_and_told(tmp_path: Path) -> None:
    stages = [np.full((16, 16), 60 * k, np.uint8) for k in range(4)]
    first, *rest = map(Image.fromarray, stages)
    path = saved(tmp_path, first, "moving.gif", save_all=True, append_images=rest)
    for frame, shown in enumerate(stages):
        assert (PictureFile(path, frame=frame).pixels(16)[..., 0] == shown).all()
        assert PictureFile(path, frame=frame).notes(16) == (
            f"moving.gif has 4 frames, of which frame {frame} is read (input.frame)",
        )
    with pytest.raises(BadInput, match=r"^frame=4: .* has 4, counted from 0$"):
        PictureFile(path, frame=4).pixels(16)


def test_how_large_a_picture_may_be_is_a_key_and_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, PICTURE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 256 pixels: Pillow's own would refuse, or warn
    np.testing.assert_array_equal(PictureFile(path).pixels(16), PICTURE)
    assert Image.MAX_IMAGE_PIXELS == 100
    saved(tmp_path, Image.new("1", (3000, 1000)))
    with pytest.raises(BadInput, match=r": 3 megapixels, and 2 are allowed; input\.max_megapixels=N allows more$"):
        PictureFile(path, max_megapixels=2.0).pixels(16)


def test_a_picture_within_an_icon_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """Its pixels are not even there: whoever decoded it would say that it is damaged."""
    head = b"IHDR" + struct.pack(">2I5B", 3000, 1000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    png += b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 8, len(png), 22) + png
    apples = b"icns" + struct.pack(">I", 16 + len(png)) + b"ic07" + struct.pack(">I", 8 + len(png)) + png
    for data in (png, icon, apples):
        (tmp_path / "picture").write_bytes(data)
        with pytest.raises(BadInput, match=r": 3 megapixels, and 2 are allowed"):
            PictureFile(str(tmp_path / "picture"), max_megapixels=2.0).pixels(16)


def test_each_frame_has_a_size_of_its_own(tmp_path: Path) -> None:
    pages = Image.new("L", (16, 16)), Image.new("L", (3000, 1000))
    path = saved(tmp_path, pages[0], "pages.tiff", save_all=True, append_images=pages[1:])
    assert (PictureFile(path, max_megapixels=2.0).pixels(16) == 0).all()
    for read in (lambda picture: picture.pixels(16), lambda picture: picture.proportions()):
        with pytest.raises(BadInput, match=r": 3 megapixels, and 2 are allowed"):
            read(PictureFile(path, frame=1, max_megapixels=2.0))
    assert PictureFile(path, frame=1, max_megapixels=3.0).proportions() == (3000, 1000)  # and nobody is warned


def test_a_large_jpeg_is_read_no_larger_than_needed_and_looks_the_same(tmp_path: Path) -> None:
    y, x = np.mgrid[:1200, :1600] / 1200
    waves = 127 + 100 * np.dstack([np.sin(9 * x), np.cos(7 * y), np.sin(5 * (x + y))])
    path = saved(tmp_path, waves.astype(np.uint8), "picture.jpg", quality=95)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.fit(image, (32, 32), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(PictureFile(path).pixels(32) - expected).max() <= 2


def test_a_heic_photo_is_read(tmp_path: Path) -> None:
    block = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, np.ones((16, 16), np.uint8))
    pillow_heif.from_pillow(Image.fromarray(block).convert("RGB")).save(tmp_path / "photo.heic", quality=100)
    np.testing.assert_allclose(PictureFile(str(tmp_path / "photo.heic")).pixels(64)[..., 0], block, atol=4)


def test_a_heic_photo_is_told_from_a_damaged_file_where_nothing_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    monkeypatch.setattr("diffsweep.imagefile.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"\(HEIC, which pillow-heif reads: pip install 'diffsweep\[heif\]'\)$"):
        PictureFile(str(tmp_path / "photo.heic")).pixels(16)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_would_be_waited_for_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    with pytest.raises(BadInput, match=rf"not a readable image \(a {kind}, where a file is needed\)$"):
        PictureFile(str(path)).pixels(16)


def test_whatever_pillow_says_of_a_damaged_file_is_told(tmp_path: Path) -> None:
    """The second frame of this TIFF has no height, and Pillow raises a TypeError."""
    frame, file = Image.new("L", (4, 4)), io.BytesIO()
    frame.save(file, "TIFF", save_all=True, append_images=[frame])
    data, height = file.getvalue(), struct.pack("<H", 257)
    assert data.count(height) == 2
    at = data.rindex(height)
    (tmp_path / "two.tif").write_bytes(data[:at] + struct.pack("<H", 9000) + data[at + 2 :])
    with pytest.raises(BadInput, match=r"two\.tif: not a readable image \(Missing dimensions\)$"):
        PictureFile(str(tmp_path / "two.tif"), frame=1).pixels(4)


def test_an_error_of_our_own_is_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "whole.png")
    with pytest.raises(KeyError), imagefile.opened(str(tmp_path / "whole.png")):
        raise KeyError("ours")


def test_a_world_pictures_caption_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of a sweep asks for it."""
    from diffsweep.input import world

    drawn = []
    monkeypatch.setattr(world, "named", lambda *asked: drawn.append(asked) or named(*asked))
    part = world.World(id="owl/photo/41")
    before = len(drawn)
    assert {part.caption() for _ in range(5)} == {named("owl/photo/41").caption}
    assert len(drawn) == before + 1


# -- pictures that are not square --------------------------------------------------------------------------------------
SHAPES = [(9, 16), (16, 9), (7, 7)]  # height and width


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(40, 30), (30, 40), (37, 21), (64, 36)])
@pytest.mark.parametrize("orientation", [1, 6, 7, 3])
def test_a_files_centre_is_what_pillow_fits_into_the_picture(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int], orientation: int
) -> None:
    """size: the file's width and height as stored. Pillow's own crop and resize, of the picture brought upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = Image.fromarray(np.random.default_rng(1).integers(80, 176, (*size[::-1], 3), dtype=np.uint8))
    file = PictureFile(saved(tmp_path, noise, exif=exif))
    with Image.open(file.path) as image:
        upright = ImageOps.exif_transpose(image)
    height, width = shape
    expected = ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
    seen = file.sized(height, width)
    assert np.abs(seen.pixels.astype(int) - np.asarray(expected)).max() <= 1  # turned before or after it was rounded


@pytest.mark.parametrize(
    "size, shape, told",
    [
        ((64, 36), (9, 16), None),
        ((64, 37), (9, 16), "is 64 x 37: its centre, 64 x 36, is taken for pictures of 16 x 9"),
        ((40, 30), (9, 16), "is 40 x 30: its centre, 40 x 22, is taken for pictures of 16 x 9"),
        ((40, 30), (16, 9), "is 40 x 30: its centre, 17 x 30, is taken for pictures of 9 x 16"),
        ((40, 30), (8, 8), "is 40 x 30: its centre square is taken for square pictures"),
        ((30, 30), (16, 9), "is 30 x 30: its centre, 17 x 30, is taken for pictures of 9 x 16"),
    ],
)
def test_what_is_taken_of_a_file_is_noted(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, int], told: str | None
) -> None:
    seen = PictureFile(saved(tmp_path, Image.new("RGB", size))).sized(*shape)
    assert seen.pixels.shape == (*shape, 3)
    assert seen.notes == (() if told is None else (f"picture.png {told}",))


def test_a_deep_file_and_a_large_jpeg_are_cropped_alike(tmp_path: Path) -> None:
    """A ramp along the width, whose middle nine of sixteen parts are seen."""
    ramp = np.tile(np.linspace(0, 65535, 1600), (1600, 1))
    deep = saved(tmp_path, ramp.round().astype(np.uint16), "deep.png")
    jpeg = saved(tmp_path, (ramp / 257).round().astype(np.uint8), "large.jpg", quality=95)
    expected = 255 * (0.5 + ((np.arange(9) + 0.5) / 9 - 0.5) * 9 / 16)
    for path in (deep, jpeg):
        pixels = PictureFile(path).sized(16, 9).pixels
        np.testing.assert_allclose(pixels[8, 1:-1, 0], expected[1:-1], atol=2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("part", [Drawing(), World()])
def test_what_is_drawn_is_the_middle_of_a_square(part: Any, shape: tuple[int, int]) -> None:
    side = max(shape)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    seen = part.sized(*shape).pixels
    assert seen.shape == (*shape, 3)
    for y in range(shape[0]):
        np.testing.assert_array_equal(seen[y], part.pixels(side)[y + top, left : left + shape[1]])


def test_an_input_of_ones_own_knows_squares_alone(tmp_path: Path) -> None:
    class Columns(Picture):
        def pixels(self, size: int) -> np.ndarray:
            return np.tile(np.arange(size, dtype=np.uint8)[:, None], (size, 1, 3))

        def notes(self, size: int) -> tuple[str, ...]:
            return (f"is {size} wide",)

    seen = Columns().sized(10, 4)
    assert seen.pixels[..., 0].tolist() == [[3, 4, 5, 6]] * 10 and seen.notes == ("is 10 wide",)
    assert Columns().sized(4, 10).pixels[..., 0].tolist() == [[*range(10)]] * 4
    assert Columns().sized(5, 5).pixels[0, :, 0].tolist() == [*range(5)]
