"""Masks: hard regions and feathered edges, against distances measured one pixel pair at a time."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.ndimage import label

from diffsweep.core.problems import BadInput
from diffsweep.mask.box import Box
from diffsweep.mask.ellipse import Ellipse
from diffsweep.mask.file import MaskFile
from diffsweep.mask.half import Half
from diffsweep.mask.mask import Mask
from diffsweep.mask.soft import PROFILES, Soft, grid
from diffsweep.mask.strokes import Strokes
from diffsweep.runner.parts import build, names

SIDE = 16
SOFT = [name for name in names("mask") if name != "none"]


@pytest.fixture
def mask(tmp_path: Path) -> Callable[..., Any]:
    """A mask of the group by name; a file's is a disc whose middle is not the picture's."""

    def made(name: str, size: int = SIDE, **settings: Any) -> Any:
        if name == "file":
            y, x = np.mgrid[:size, :size] / size
            settings["path"] = str(tmp_path / f"{size}.png")
            disc = ((x - 0.3) ** 2 + (y - 0.6) ** 2 < 0.06) | (size == 1)
            Image.fromarray(disc.astype(np.uint8) * 255).save(settings["path"])
        return build("mask", {"name": name, **settings})

    return made


def rise(u: float, profile: str) -> float:
    """The profiles, written out once more: 0 at u <= 0, 1 at u >= 1."""
    u = min(max(u, 0), 1)
    if profile == "linear":
        return u
    if profile == "cosine":
        return math.sin(math.pi * u / 2) ** 2
    return 0.5 + math.erf((4 * u - 2) / math.sqrt(2)) / (2 * math.erf(math.sqrt(2)))


def distances(region: np.ndarray) -> np.ndarray:
    """From each pixel to the edge, half a pixel before the nearest one of the other kind; negative outside."""
    inside, outside = np.argwhere(region), np.argwhere(~region)
    far = np.linalg.norm(inside[:, None] - outside[None], axis=-1)
    signed = np.empty(region.shape)
    signed[region] = far.min(axis=1) - 0.5
    signed[~region] = 0.5 - far.min(axis=0)
    return signed


# -- every mask ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", names("mask"))
@pytest.mark.parametrize("size", [1, 2, 9, 32])
def test_every_mask_is_8_bit_and_square_and_the_same_each_time(mask: Callable[..., Any], name: str, size: int) -> None:
    values = mask(name, size).values(size)
    assert values.dtype == np.uint8 and values.shape == (size, size)
    np.testing.assert_array_equal(values, mask(name, size).values(size))


@pytest.mark.parametrize("name", SOFT)
def test_a_mask_without_softness_is_hard(mask: Callable[..., Any], name: str) -> None:
    part = mask(name)
    assert set(np.unique(part.values(SIDE))) == {0, 255}
    np.testing.assert_array_equal(part.values(SIDE) == 255, part.region(SIDE))


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("side, shift", [("inward", 0.0), ("centred", 0.5), ("outward", 1.0)])
@pytest.mark.parametrize("profile", PROFILES)
def test_softness_is_the_bands_width_in_pixels(
    mask: Callable[..., Any], name: str, side: str, shift: float, profile: str
) -> None:
    for softness in (1, 3, 4.5):
        part = mask(name, softness=softness, side=side, profile=profile)
        away = distances(part.region(SIDE))
        expected = [[255 * rise(shift + d / softness, profile) for d in row] for row in away]
        values = part.values(SIDE)
        np.testing.assert_allclose(values, expected, rtol=0, atol=0.5 + 1e-6)
        # the band is where it is said to be: known and regenerated pixels beside it are exactly so
        assert (values[away <= -shift * softness] == 0).all()
        assert (values[away >= (1 - shift) * softness] == 255).all()


@pytest.mark.parametrize("name", SOFT)
def test_an_inward_feather_leaves_the_known_and_an_outward_one_the_regenerated(
    mask: Callable[..., Any], name: str
) -> None:
    region = mask(name).region(SIDE)
    inward, outward = (mask(name, softness=5, side=side).values(SIDE) for side in ("inward", "outward"))
    assert (inward[~region] == 0).all() and (inward[region] < 255).any()
    assert (outward[region] == 255).all() and (outward[~region] > 0).any()


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize(
    "settings, messages",
    [
        ({"softness": -1.0}, ["mask.softness=-1: must be at least 0"]),
        ({"softness": math.nan}, ["mask.softness=nan: must be ", "a finite number"]),
        ({"softness": "wide"}, ["mask.softness=wide: must be ", "a number"]),
        ({"softnes": 1.0}, ["mask.softnes: unknown key", "did you mean 'softness'"]),
        (
            {"profile": "cosin", "side": "inwards"},
            [
                "mask.profile=cosin: must be one of linear, cosine, gaussian; did you mean 'cosine'",
                "mask.side=inwards: must be one of inward, centred, outward; did you mean 'inward'",
            ],
        ),
    ],
)
def test_a_feather_that_cannot_be_names_every_key(
    mask: Callable[..., Any], name: str, settings: dict[str, Any], messages: list[str]
) -> None:
    with pytest.raises(BadInput) as refused:
        mask(name, **settings)
    assert all(message in str(refused.value) for message in messages)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "box", "x0": 0.8, "x1": 0.2}, "mask.x0=0.8, x1=0.2: x0 must not exceed x1"),
        ({"name": "box", "y0": 0.8, "y1": 0.2}, "mask.y0=0.8, y1=0.2: y0 must not exceed y1"),
        ({"name": "box", "y1": 1.5}, "mask.y1=1.5: must be between 0 and 1"),
        ({"name": "ellipse", "rx": 0.0}, "mask.rx=0: must be at least 0.001"),
        ({"name": "ellipse", "x": -0.5}, "mask.x=-0.5: must be between 0 and 1"),
        ({"name": "half", "half": "lft"}, "mask.half=lft: must be one of left, right.*; did you mean 'left'"),
        ({"name": "strokes", "count": 0}, "mask.count=0: must be between 1 and 1000"),
        ({"name": "strokes", "width": 2.0}, "mask.width=2: must be between 0.001 and 1"),
        ({"name": "elipse"}, "mask=elipse: not known"),
    ],
)
def test_a_shape_that_cannot_be_names_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build("mask", settings)


# -- worked out by hand ----------------------------------------------------------------------------------------------
def test_without_a_mask_everything_is_regenerated(mask: Callable[..., Any]) -> None:
    assert (mask("none").values(SIDE) == 255).all()


def rows(region: np.ndarray) -> list[str]:
    return ["".join(".#"[int(pixel)] for pixel in row) for row in region]


@pytest.mark.parametrize(
    "part, drawn",
    [
        (Box(), ["....", ".##.", ".##.", "...."]),
        (Box(x0=0, y0=0.5, x1=0.5, y1=1), ["....", "....", "##..", "##.."]),
        (Box(x0=0.5, x1=1.0, y0=0.0, y1=0.2), ["..##", "....", "....", "...."]),
        (Box(x0=0, y0=0, x1=1, y1=1), ["####"] * 4),
        (Box(x0=0.5, x1=0.5), ["...."] * 4),
        (Ellipse(), ["....", ".##.", ".##.", "...."]),
        (Ellipse(x=0.0, y=0.0, rx=0.7, ry=0.3), ["###.", "....", "....", "...."]),
        (Half(half="left"), ["##..."] * 5),
        (Half(half="right"), ["...##"] * 5),
        (Half(half="top"), ["#####"] * 2 + ["....."] * 3),
        (Half(half="bottom"), ["....."] * 3 + ["#####"] * 2),
    ],
)
def test_a_region_holds_the_pixels_whose_centres_it_covers(part: Any, drawn: list[str]) -> None:
    assert rows(part.region(len(drawn))) == drawn


@pytest.mark.parametrize(
    "settings, row",
    [
        # softness 4: the centres lie 0.5, 1.5, ... from the edge, so u = 1/2 + 1/8, 1/2 + 3/8, 1, 1
        ({"softness": 4.0}, [0, 0, 32, 96, 159, 223, 255, 255]),
        # softness 2: u = 1/4 and 3/4
        ({"softness": 2.0}, [0, 0, 0, 64, 191, 255, 255, 255]),
        ({"softness": 2.0, "side": "inward"}, [0, 0, 0, 0, 64, 191, 255, 255]),
        ({"softness": 2.0, "side": "outward"}, [0, 0, 64, 191, 255, 255, 255, 255]),
        # (1 - cos(pi / 4)) / 2 = 0.1464
        ({"softness": 2.0, "profile": "cosine"}, [0, 0, 0, 37, 218, 255, 255, 255]),
        # (Phi(-1) - Phi(-2)) / (Phi(2) - Phi(-2)) = (0.15866 - 0.02275) / 0.95450 = 0.14239
        ({"softness": 2.0, "profile": "gaussian"}, [0, 0, 0, 36, 219, 255, 255, 255]),
        # narrower than the distance of neighbouring pixels: hard
        ({"softness": 1.0}, [0, 0, 0, 0, 255, 255, 255, 255]),
    ],
)
def test_a_half_with_a_feather_worked_out_by_hand(settings: dict[str, Any], row: list[int]) -> None:
    part = build("mask", {"name": "half", **settings})
    assert part.values(8).tolist() == [row] * 8


@pytest.mark.parametrize("part", [Box(x0=0, y0=0, x1=1, y1=1, softness=5), Box(x0=0.5, x1=0.5, softness=5)])
def test_a_region_without_an_edge_has_no_feather(part: Any) -> None:
    assert len(np.unique(part.values(SIDE))) == 1


def test_an_ellipse_has_the_area_of_an_ellipse() -> None:
    share = Ellipse(x=0.4, y=0.55, rx=0.35, ry=0.2).region(256).mean()
    assert share == pytest.approx(math.pi * 0.35 * 0.2, rel=0.005)


# -- strokes ---------------------------------------------------------------------------------------------------------
def test_strokes_are_decided_by_their_seed() -> None:
    seen = {Strokes(seed=seed).region(64).tobytes() for seed in range(8)}
    assert len(seen) == 8
    assert seen == {Strokes(seed=seed).region(64).tobytes() for seed in range(8)}


@pytest.mark.parametrize("seed", range(3))
def test_a_stroke_is_connected_and_as_wide_as_the_brush(seed: int) -> None:
    region = Strokes(seed=seed, count=1, width=0.2).region(64)
    assert label(region, np.ones((3, 3)))[1] == 1
    # a round brush drew it: all but a few pixels at the rim lie in a disc of its width that the region holds
    radius = 0.2 * 64 / 2 - 2
    y, x = np.mgrid[:64, :64]
    discs = np.hypot(y[..., None, None] - y, x[..., None, None] - x) <= radius
    fits = ~(discs & ~region).any((2, 3))
    assert (discs[fits].any(0) & region).sum() > 0.98 * region.sum()


def test_more_strokes_cover_more() -> None:
    covered = [Strokes(seed=3, count=count).region(64).mean() for count in (1, 4, 16)]
    assert 0 < covered[0] < covered[1] < covered[2] < 1


@pytest.mark.parametrize("seed", range(3))
def test_strokes_are_the_same_scribble_at_every_size(seed: int) -> None:
    large = Strokes(seed=seed).region(128).reshape(32, 4, 32, 4).mean((1, 3))
    small = Strokes(seed=seed).region(32)
    decided = (large < 0.2) | (large > 0.8)
    assert decided.mean() > 0.7
    assert ((large > 0.5) == small)[decided].mean() > 0.99


# -- files -----------------------------------------------------------------------------------------------------------
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(folder: Path, image: Image.Image | np.ndarray, **settings: Any) -> str:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(folder / "mask.png", **settings)
    return str(folder / "mask.png")


def test_a_mask_file_without_softness_keeps_its_grey_values(tmp_path: Path) -> None:
    np.testing.assert_array_equal(MaskFile(path=saved(tmp_path, GREY)).values(16), GREY)


def test_a_mask_file_with_softness_feathers_the_edge_of_its_bright_half(tmp_path: Path) -> None:
    part = MaskFile(path=saved(tmp_path, GREY), softness=4)
    np.testing.assert_array_equal(part.region(16), GREY >= 128)
    assert part.values(16)[:, 0].tolist() == [0] * 6 + [32, 96, 159, 223] + [255] * 6


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_a_mask_file_of_another_mode_means_its_lightness(tmp_path: Path, mode: str) -> None:
    hard = np.where(GREY >= 100, 255, 0).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(hard).convert(mode))
    np.testing.assert_array_equal(MaskFile(path=path).values(16), hard)


def test_a_palette_mask_means_the_lightness_of_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray((GREY >= 100).astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    path = saved(tmp_path, image, transparency=b"\xff\xff")
    np.testing.assert_array_equal(MaskFile(path=path).values(16), np.where(GREY >= 100, 0, 255))


def test_a_16_bit_mask_file_keeps_its_grey_values(tmp_path: Path) -> None:
    path = saved(tmp_path, GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(MaskFile(path=path).values(16), GREY)


def test_a_mask_file_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    path = saved(tmp_path, GREY, exif=exif)
    np.testing.assert_array_equal(MaskFile(path=path).values(16), np.rot90(GREY, -1))


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such file"),
        (b"", "not a readable image"),
        (b"a text", "not a readable image"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not a readable image"),
    ],
)
def test_a_mask_file_that_cannot_be_read_is_refused_by_its_key(
    config: Callable[..., Any], tmp_path: Path, content: bytes | None, message: str
) -> None:
    from diffsweep.runner.freeze import freeze

    path = tmp_path / "mask.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=rf"^mask\.path={path}: {message}"):
        freeze(config(technique="inpaint", mask="file", mask__path=str(path)), {})


def test_a_mask_file_without_a_path_says_that_one_is_needed(config: Callable[..., Any]) -> None:
    from diffsweep.runner.freeze import freeze

    with pytest.raises(BadInput, match=r"^mask\.path: a file is needed"):
        freeze(config(technique="inpaint", mask="file"), {})


# -- what a file means -----------------------------------------------------------------------------------------------
DISC = (np.hypot(*(np.mgrid[:16, :16] - 7.5)) < 5).astype(np.uint8)


def stained(grey: int, alpha: np.ndarray) -> np.ndarray:
    """One grey everywhere, and an alpha."""
    return np.dstack([np.full((16, 16, 3), grey, np.uint8), alpha])


@pytest.mark.parametrize(
    "pixels, note",
    [
        (DISC, "mask.png holds the values 0 and 1: read as a label map, where 1 is regenerated"),
        (DISC * 254, "mask.png has values near black or white, 31 % of it: read as black and white"),
        (DISC * 250 + 5, "mask.png has values near black or white, 69 % of it: read as black and white"),
        (np.dstack([DISC * 255, DISC * 0, DISC * 0]), "mask.png has colours: a pixel's brightest channel is its value"),
        *(
            (
                stained(grey, DISC * 255),
                "mask.png has one grey and an alpha that varies: its alpha is the mask, and what is opaque is "
                "regenerated; mask.invert=true turns that round",
            )
            for grey in (0, 255)
        ),
        (DISC.astype(np.uint16), "mask.png holds the values 0 and 1: read as a label map, where 1 is regenerated"),
        (DISC * 255, None),
    ],
)
def test_a_file_that_means_a_hard_mask_is_one_and_what_was_assumed_is_told(
    tmp_path: Path, pixels: np.ndarray, note: str | None
) -> None:
    part = MaskFile(path=saved(tmp_path, pixels))
    np.testing.assert_array_equal(part.values(16), DISC * 255)
    assert part.notes(16) == (() if note is None else (note,))


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_a_jpeg_of_a_hard_mask_is_hard_but_at_its_edge(tmp_path: Path, quality: int) -> None:
    y, x = np.mgrid[:128, :128]
    disc = np.hypot(y - 60, x - 60) < 40
    Image.fromarray(disc.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=quality)
    part = MaskFile(path=str(tmp_path / "mask.jpg"))
    values, away = part.values(128), np.abs(distances_to_circle(128, 60, 40))
    decided = away > 8  # a block of the format's
    np.testing.assert_array_equal(values[decided], disc[decided] * 255)
    assert "near black or white" in part.notes(128)[0]
    hard = MaskFile(path=str(tmp_path / "mask.jpg"), softness=0.0).values(128)
    assert set(np.unique(hard)) == {0, 255} and (hard == disc * 255)[away > 1].all()


def distances_to_circle(side: int, middle: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return radius - np.hypot(y - middle, x - middle)


@pytest.mark.parametrize(
    "pixels, message",
    [
        (DISC * 0, "all of it is black: it regenerates nothing"),
        (DISC * 0 + 49, "all of it is 49, of 255: a mask has parts, of which the white ones are regenerated$"),
        (DISC * 15 + np.flipud(DISC) * 2, "its values are .*, of 255, and next to nothing would be regenerated"),
        (DISC * 20, "its values are 0, 20, of 255, .* mask.threshold=20 regenerates what is 20 or more"),
        (DISC.astype(np.int32) * 1000000, "not a readable image .*values from 0 to 1e\\+06 are no mask's"),
    ],
)
def test_a_file_that_regenerates_nothing_is_refused(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    image = Image.fromarray(pixels)
    image.save(tmp_path / ("mask.tif" if image.mode == "I" else "mask.png"))
    (path,) = tmp_path.iterdir()
    with pytest.raises(BadInput, match=f"^path={path}: {message}"):
        MaskFile(path=str(path)).values(16)


def test_of_a_black_frame_another_is_named(tmp_path: Path) -> None:
    """And what is named works."""
    frames = [Image.fromarray(DISC * 0), Image.fromarray(DISC * 255)]
    path = saved(tmp_path, frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(BadInput, match=r"all of it is black.*; mask\.frame=1 reads another of its 2 frames$"):
        MaskFile(path=path).values(16)
    np.testing.assert_array_equal(MaskFile(path=path, frame=1).values(16), DISC * 255)


def test_a_flat_palette_is_given_no_threshold(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="all of it is one colour of a palette") as refused:
        MaskFile(path=saved(tmp_path, labelled(DISC * 0 + 3, VOC))).values(16)
    assert "threshold" not in str(refused.value)


def test_a_threshold_takes_the_labels_from_it_on(tmp_path: Path) -> None:
    labels = np.repeat(np.array([0, 1, 2, 7], np.uint8), 64).reshape(16, 16)
    for threshold, first in ((1, 4), (2, 8), (3, 12)):
        values = MaskFile(path=saved(tmp_path, labels), threshold=threshold).values(16)
        assert (values == np.where(np.arange(16)[:, None] >= first, 255, 0)).all()
    with pytest.raises(BadInput, match=r"^mask\.threshold=0: must be between 1 and 255"):
        build("mask", {"name": "file", "path": "x", "threshold": 0})


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]  # the colours of the first labels


def labelled(labels: np.ndarray, palette: list[int]) -> Image.Image:
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putpalette(palette)
    return image


def test_a_threshold_takes_the_labels_of_a_coloured_palette(tmp_path: Path) -> None:
    labels = np.repeat(np.array([0, 1, 2, 4], np.uint8), 64).reshape(16, 16)
    path = saved(tmp_path, labelled(labels, VOC))
    for threshold in (1, 2, 3):
        values = MaskFile(path=path, threshold=threshold).values(16)
        np.testing.assert_array_equal(values, np.where(labels >= threshold, 255, 0))
    with pytest.raises(BadInput, match=r"its labels 0, 1, 2, 4; mask\.threshold=1 regenerates the labels from 1 on$"):
        MaskFile(path=path).values(16)


def test_a_coloured_palette_of_two_labels_needs_no_threshold(tmp_path: Path) -> None:
    part = MaskFile(path=saved(tmp_path, labelled(DISC, VOC)))
    np.testing.assert_array_equal(part.values(16), DISC * 255)
    assert part.notes(16) == ("mask.png holds the values 0 and 1: read as a label map, where 1 is regenerated",)


def test_a_grey_palette_is_a_grey_picture(tmp_path: Path) -> None:
    ramp = [value for value in range(255, -1, -1) for _ in range(3)]
    path = saved(tmp_path, labelled(GREY, ramp))
    np.testing.assert_array_equal(MaskFile(path=path).values(16), 255 - GREY)
    np.testing.assert_array_equal(MaskFile(path=path, threshold=40).values(16), np.where(255 - GREY >= 40, 255, 0))


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    "image",
    [
        DISC * 0,
        DISC * 20,
        DISC * 15 + np.flipud(DISC) * 2,
        labelled(DISC * 4, VOC),
        labelled(DISC + np.flipud(DISC), VOC),
        stained(9, DISC * 255),
    ],
)
def test_what_a_refusal_or_a_note_advises_works(
    config: Callable[..., Any], tmp_path: Path, image: Any, inverted: bool
) -> None:
    """Each of its keys is given; then each is taken, and at least something is regenerated."""
    from diffsweep.runner.freeze import freeze

    files = {"technique": "inpaint", "mask": "file", "mask__path": saved(tmp_path, image), "mask__invert": inverted}
    try:
        told = " ".join(freeze(config(**files), {}).notes)
    except BadInput as error:
        told = " ".join(error.messages)
        assert "mask." in told.partition(": ")[2]
    for key, value in re.findall(r"mask\.(threshold|invert)=(\w+)", told):
        taken = {f"mask__{key}": int(value) if value.isdecimal() else value == "true"}
        assert freeze(config(**files | taken), {}).mask.any()


def test_a_dark_mask_inverted_regenerates_what_is_dark(tmp_path: Path) -> None:
    assert (MaskFile(path=saved(tmp_path, DISC * 0), invert=True).values(16) == 255).all()
    np.testing.assert_array_equal(MaskFile(path=saved(tmp_path, DISC * 20), invert=True).values(16), 255 - DISC * 20)
    with pytest.raises(BadInput, match="all of it is black"):
        MaskFile(path=saved(tmp_path, DISC * 0)).values(16)


def test_of_an_animated_mask_one_frame_is_read_and_told(tmp_path: Path) -> None:
    first, second = Image.fromarray(DISC * 255), Image.fromarray(255 - DISC * 255)
    first.save(tmp_path / "mask.gif", save_all=True, append_images=[second])
    for frame, shown in enumerate((DISC * 255, 255 - DISC * 255)):
        part = MaskFile(path=str(tmp_path / "mask.gif"), frame=frame)
        np.testing.assert_array_equal(part.values(16), shown)
        assert part.notes(16) == (f"mask.gif has 2 frames, of which frame {frame} is read (mask.frame)",)
    with pytest.raises(BadInput, match=r"^frame=2: .* has 2, counted from 0$"):
        MaskFile(path=str(tmp_path / "mask.gif"), frame=2).values(16)


def test_softness_0_is_hard_for_a_file_too(tmp_path: Path) -> None:
    path = saved(tmp_path, GREY)
    np.testing.assert_array_equal(MaskFile(path=path, softness=0.0).values(16), np.where(GREY >= 128, 255, 0))
    np.testing.assert_array_equal(MaskFile(path=path, threshold=40).values(16), np.where(GREY >= 40, 255, 0))


@pytest.mark.parametrize("name", SOFT)
def test_an_inverted_mask_regenerates_what_the_other_keeps(mask: Callable[..., Any], name: str) -> None:
    np.testing.assert_array_equal(mask(name, invert=True).values(SIDE), 255 - mask(name).values(SIDE))
    feathered = mask(name, invert=True, softness=4).values(SIDE).astype(int) + mask(name, softness=4).values(SIDE)
    assert set(np.unique(feathered)) <= {255, 256} | {254}  # each rounded for itself


def test_a_grey_file_inverted_is_its_negative(tmp_path: Path) -> None:
    np.testing.assert_array_equal(MaskFile(path=saved(tmp_path, GREY), invert=True).values(16), 255 - GREY)


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (64, 64)])
def test_a_mask_of_the_photos_own_size_is_cropped_and_resized_with_it(
    config: Callable[..., Any], tmp_path: Path, shape: tuple[int, int]
) -> None:
    """A photo that is white where its mask is."""
    from diffsweep.runner.freeze import freeze

    drawn = np.zeros(shape, np.uint8)
    drawn[12:36, 16:40] = 255
    path = saved(tmp_path, drawn)
    files = {"input": "file", "input__path": path, "mask": "file", "mask__path": path}
    cell = freeze(config(technique="inpaint", model__size=8, **files), {})
    assert cell.mask is not None and set(np.unique(cell.mask)) == {0, 255}
    photo = cell.pixels[..., 0].astype(int)
    decided = np.abs(photo - 128) > 40  # but where half of a pixel is white
    assert decided.mean() > 0.7
    np.testing.assert_array_equal(photo[decided] >= 128, cell.mask[decided] == 255)


@pytest.mark.parametrize("photo", [(64, 64), (48, 64)])
def test_a_mask_of_other_proportions_than_the_photos_is_refused(
    config: Callable[..., Any], tmp_path: Path, photo: tuple[int, int]
) -> None:
    from diffsweep.runner.freeze import freeze

    Image.new("RGB", photo).save(tmp_path / "photo.png")
    files = {"input": "file", "input__path": str(tmp_path / "photo.png")}
    path = saved(tmp_path, GREY[:, :14])
    with pytest.raises(BadInput, match=rf"^mask\.path={path}: the mask is 14 x 16 pixels, the picture (48 x|square)"):
        freeze(config(technique="inpaint", **files, mask="file", mask__path=path), {})


@pytest.mark.parametrize("name", ["half", "box"])
def test_an_enlarged_mask_has_its_feather_enlarged(mask: Callable[..., Any], name: str) -> None:
    """Against the small one: means over blocks agree, and there are values between its own."""
    small = mask(name, softness=4.0)
    large = small.enlarged(4).values(64)
    np.testing.assert_allclose(large.reshape(16, 4, 16, 4).mean((1, 3)), small.values(16), atol=20)
    assert len(np.unique(large)) > 2 * len(np.unique(small.values(16)))


def test_a_mask_that_waits_for_ever_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mask.png")
    with pytest.raises(BadInput, match=r"not a readable image \(a pipe, where a file is needed\)"):
        MaskFile(path=str(tmp_path / "mask.png")).values(16)


# -- pictures that are not square --------------------------------------------------------------------------------------
SHAPES = [(9, 16), (16, 9), (12, 30)]  # height and width


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("invert", [False, True])
def test_edges_are_shares_of_width_and_height(shape: tuple[int, int], invert: bool) -> None:
    height, width = shape
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None] + 0.5) / width
    inside = {
        Box(x0=0.1, y0=0.3, x1=0.5, y1=0.95, invert=invert): (x >= 0.1) & (x <= 0.5) & (y >= 0.3) & (y <= 0.95),
        Ellipse(x=0.4, y=0.6, rx=0.35, ry=0.2, invert=invert): np.hypot((x - 0.4) / 0.35, (y - 0.6) / 0.2) <= 1,
        Half(half="right", invert=invert): (x > 0.5) & (y > 0),
        Half(half="top", invert=invert): (y < 0.5) & (x > 0),
    }
    for part, region in inside.items():
        expected = (region != invert).tolist()
        seen = part.sized(height, width)
        assert seen.hard.tolist() == expected and (seen.values == 255).tolist() == expected


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_feather_is_as_wide_along_both_sides(mask: Callable[..., Any], name: str, shape: tuple[int, int]) -> None:
    """By distances in pixels, one pair at a time; a file's is a square, pressed to nothing but its centre."""
    seen = mask(name, softness=3.0, profile="cosine").sized(*shape)
    expected = [[255 * rise(0.5 + d / 3, "cosine") for d in row] for row in distances(seen.hard)]
    assert seen.values.shape == shape and seen.hard.any() and not seen.hard.all()
    np.testing.assert_allclose(seen.values, expected, rtol=0, atol=0.5 + 1e-6)


@pytest.mark.parametrize("name", names("mask"))
def test_a_square_is_the_square_it_was(mask: Callable[..., Any], name: str) -> None:
    for settings in ({}, {"softness": 4.0, "invert": True}) if name != "none" else ({},):
        part = mask(name, **settings)
        seen = part.sized(SIDE, SIDE)
        np.testing.assert_array_equal(seen.values, part.values(SIDE))
        np.testing.assert_array_equal(seen.hard, part.hard(SIDE))
        assert seen.notes == part.notes(SIDE)


@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_brush_is_round_and_a_share_of_the_shorter_side(shape: tuple[int, int], seed: int) -> None:
    """The walk, written out once more, and each pixel's distance from its segments."""
    height, width = shape
    rng = random.Random(seed)
    x, y, angle = rng.random(), rng.random(), rng.uniform(0, 2 * math.pi)
    points = [(x, y)]
    for _ in range(rng.randint(3, 6)):
        angle += rng.uniform(-1, 1)
        step = rng.uniform(0.1, 0.25)
        x, y = (float(np.clip(u + step * v, 0, 1)) for u, v in ((x, math.cos(angle)), (y, math.sin(angle))))
        points.append((x, y))
    walk = np.array(points) * (width, height)
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    far = np.full(shape, np.inf)
    for a, b in pairwise(walk):
        along = np.clip(((centres - a) @ (b - a)) / max((b - a) @ (b - a), 1e-9), 0, 1)
        far = np.minimum(far, np.linalg.norm(centres - (a + along[..., None] * (b - a)), axis=-1))
    region = Strokes(seed=seed, count=1, width=0.25).sized(*shape).hard
    assert region[far < 3 - 0.75].all() and not region[far > 3 + 0.75].any()  # a quarter of 24 pixels wide
    assert 0.05 < region.mean() < 0.6


def test_a_shape_of_ones_own_is_pressed_into_the_picture_before_its_edge_is_softened() -> None:
    class Corner(Soft):
        def region(self, size: int) -> np.ndarray:
            y, x = grid(size)
            return (x < 0.5) & (y < 0.25)

    for height, width in ((8, 16), (16, 8)):
        expected = Box(x0=0, y0=0, x1=0.5, y1=0.25, softness=2.0).sized(height, width)
        seen = Corner(softness=2.0).sized(height, width)
        np.testing.assert_array_equal(seen.hard, expected.hard)
        np.testing.assert_array_equal(seen.values, expected.values)


def test_a_mask_of_ones_own_is_pressed_by_means_and_a_hard_one_stays_hard() -> None:
    class Given(Mask):
        def __init__(self, rows: np.ndarray) -> None:
            self.rows = rows

        def values(self, size: int) -> np.ndarray:
            assert size == len(self.rows)
            return self.rows

        def notes(self, size: int) -> tuple[str, ...]:
            return (f"is {size} wide",)

    grey = np.random.default_rng(3).integers(1, 255, (16, 16), dtype=np.uint8)
    seen = Given(grey).sized(8, 16)
    np.testing.assert_allclose(seen.values, grey.reshape(8, 2, 16).mean(1), atol=0.51)
    assert seen.notes == ("is 16 wide",)
    hard = np.where(grey > 128, 255, 0).astype(np.uint8)
    seen = Given(hard).sized(16, 4)
    means = hard.reshape(16, 4, 4).mean(2)
    assert set(np.unique(seen.values)) == {0, 255}
    np.testing.assert_array_equal(seen.values == 255, means >= 127.5)
    np.testing.assert_array_equal(seen.hard, seen.values == 255)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_a_mask_files_centre_is_what_pillow_fits_into_the_picture(
    tmp_path: Path, shape: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    y, x = np.mgrid[:41, :60]
    path = saved(tmp_path, (90 + 2 * x + y**2 / 60).astype(np.uint8), exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
    expected = ImageOps.fit(upright, shape[::-1], Image.Resampling.BOX)
    assert np.abs(MaskFile(path=path).sized(*shape).values.astype(int) - np.asarray(expected)).max() <= 3


@pytest.mark.parametrize(
    "mask_size, photo, model, fits",
    [
        ((40, 30), (400, 300), (9, 16), True),  # of the photo, with which it is cropped
        ((32, 18), (400, 300), (9, 16), True),  # of the picture that is left
        ((34, 18), (400, 300), (9, 16), False),
        ((30, 30), (400, 300), (9, 16), False),  # a square was none of the two
        ((30, 30), (300, 300), (9, 16), True),
        ((32, 18), (400, 300), (16, 9), False),
        ((30, 30), (400, 300), (8, 8), True),
        ((31, 30), (400, 300), (8, 8), False),
    ],
)
def test_a_mask_file_is_of_the_photo_or_of_what_is_left_of_it(
    oblong: Callable[..., Any],
    tmp_path: Path,
    mask_size: tuple[int, int],
    photo: tuple[int, int],
    model: tuple[int, int],
    fits: bool,
) -> None:
    """Sizes are width and height, the model's height and width."""
    from diffsweep.runner.freeze import freeze

    Image.new("RGB", photo).save(tmp_path / "photo.png")
    drawn = np.zeros(mask_size[::-1], np.uint8)
    drawn[5:15, 5:15] = 255
    files = {"input": "file", "input__path": str(tmp_path / "photo.png"), "mask": "file"}
    raw = oblong(*model, technique="inpaint", **files, mask__path=saved(tmp_path, drawn))
    if fits:
        assert freeze(raw, {}).mask.shape == model
        return
    other = "square" if model == (8, 8) else f"has the proportions of {model[1]} x {model[0]}"
    told = rf"the mask is {mask_size[0]} x {mask_size[1]} pixels, the picture \d+ x \d+; .*, or {other}$"
    with pytest.raises(BadInput, match=told):
        freeze(raw, {})
