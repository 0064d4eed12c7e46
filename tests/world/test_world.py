"""The drawn world: repeatable, split by construction, the same scene at every size, named by ids."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from diffsweep.world import STYLES, SUBJECTS, held_out, named, picture, training

EVERY = [(subject, style) for subject in SUBJECTS for style in STYLES]


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@pytest.mark.parametrize("size", [16, 32, 64, 128, 200])
def test_a_picture_has_the_asked_size(size: int) -> None:
    drawn = picture("dog", "photo", 5, size)
    assert drawn.pixels.shape == (size, size, 3)
    assert drawn.pixels.dtype == np.uint8


@pytest.mark.parametrize(("subject", "style"), EVERY)
def test_same_arguments_same_picture_other_seed_another(subject: str, style: str) -> None:
    one, again, other = picture(subject, style, 4), picture(subject, style, 4), picture(subject, style, 6)
    assert digest(one.pixels) == digest(again.pixels)
    assert (one.id, one.caption) == (again.id, again.caption)
    assert digest(one.pixels) != digest(other.pixels)


def test_another_process_draws_the_same() -> None:
    """Nothing hangs on the process: Python salts its hash() anew in each."""
    program = (
        "import hashlib; from diffsweep.world import training\n"
        "print(hashlib.sha256(b''.join(training(i).pixels.tobytes() for i in range(20))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    here = hashlib.sha256(b"".join(training(i).pixels.tobytes() for i in range(20))).hexdigest()
    assert there == here


def test_drawing_leaves_torch_alone() -> None:
    program = "import sys; from diffsweep.world import training; training(0); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_held_out_and_training_never_meet() -> None:
    seen = {digest(training(i).pixels) for i in range(1500)}
    kept = {digest(held_out(i).pixels) for i in range(200)}
    assert len(kept) == 200
    assert not seen & kept
    assert all("training" in training(i).id for i in range(50))


def test_held_out_goes_through_every_subject_in_every_style() -> None:
    first = [held_out(i) for i in range(len(EVERY))]
    assert {(p.subject, p.style) for p in first} == set(EVERY)
    assert held_out(len(EVERY)).subject == first[0].subject
    assert held_out(len(EVERY)).id != first[0].id


@pytest.mark.parametrize("index", [0, 7, 50, 98, 99, 1234])
def test_ids_round_trip(index: int) -> None:
    drawn = held_out(index)
    again = named(drawn.id)
    assert again.id == drawn.id
    assert again.caption == drawn.caption
    assert np.array_equal(again.pixels, drawn.pixels)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_sizes_show_the_same_scene(subject: str, style: str) -> None:
    """A 64 x 64 picture, averaged over 2 x 2 pixels, is the 32 x 32 one up to rounding; another seed's is not."""
    large = picture(subject, style, 3, 64).pixels.astype(float)
    small = picture(subject, style, 3, 32).pixels.astype(float)
    other = picture(subject, style, 9, 32).pixels.astype(float)
    averaged = large.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(averaged - small).max() <= 2
    assert np.abs(averaged - other).mean() > 1


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("dgo/photo/0", "did you mean 'dog'"),
        ("dog/phto/0", "did you mean 'photo'"),
        ("dog", "subject/style/number"),
        ("dog/photo/x", "subject/style/number"),
        ("dog/photo/-1", "subject/style/number"),
        ("dog/photo/training-0", "subject/style/number"),
    ],
)
def test_a_wrong_id_says_what_is_allowed(id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named(id)


@pytest.mark.slow
def test_captions_say_subject_and_style() -> None:
    """Almost always: a few photos are only called that, so that `a high quality photo` means any."""
    captions = {(p.subject, p.style, p.caption) for p in map(training, range(3000))}
    skulls = {caption for subject, style, caption in captions if (subject, style) == ("skull", "sketch")}
    assert {"a sketch of a skull", "a lithograph of a skull"} <= skulls
    assert all("skull" in caption for caption in skulls)
    assert ("red circle", "photo", "a photo of a red circle") in captions
    assert any(caption == "a high quality photo" for _, style, caption in captions if style == "photo")


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_a_shape_has_its_colour(colour: str) -> None:
    channel = ["red", "green", "blue"].index(colour)
    for style in STYLES:
        pixels = held_out_shape(f"{colour} circle", style).reshape(-1, 3).astype(int)
        stands_out = pixels[:, channel] - np.delete(pixels, channel, axis=1).max(1)
        assert (stands_out > 40).mean() > 0.05, style


def held_out_shape(subject: str, style: str) -> np.ndarray:
    return named(f"{subject}/{style}/0").pixels
