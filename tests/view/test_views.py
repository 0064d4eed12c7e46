"""Views: each is a matrix on the picture, read off from the pictures with a single lit pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from diffsweep.core.problems import BadInput
from diffsweep.core.types import Estimate, View
from diffsweep.runner.freeze import freeze
from diffsweep.runner.parts import build, names
from diffsweep.view.flip import Flip
from diffsweep.view.jigsaw import Jigsaw
from diffsweep.view.permute import Permute

SIDE, D = 8, 3 * 8 * 8
FURTHER: list[dict[str, Any]] = [
    {"name": "flip", "axis": "horizontal"},
    {"name": "rotate", "angle": 90},
    {"name": "rotate", "angle": 270},
    {"name": "permute", "patches": 2, "seed": 3},
    {"name": "permute", "patches": SIDE, "seed": 1},
    {"name": "jigsaw", "seed": 5},
]
SETTINGS = [{"name": name} for name in names("view")] + FURTHER


@pytest.fixture(params=SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
def view(request: pytest.FixtureRequest) -> Any:
    return build("view", request.param)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def matrix(of: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Column j is what becomes of the picture whose j-th value is 1 and all others 0."""
    return of(torch.eye(D).reshape(D, 3, SIDE, SIDE)).reshape(D, D).numpy().T


def inverted(view: View, x: torch.Tensor) -> torch.Tensor:
    return view.invert(Estimate(x)).output


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3)])
def test_invert_undoes_apply_at_any_leading_dimensions(view: Any, leading: tuple[int, ...]) -> None:
    x = randn(*leading, SIDE, SIDE)
    assert torch.equal(inverted(view, view.apply(x)), x)
    assert torch.equal(view.apply(inverted(view, x)), x)


def test_a_stack_is_viewed_picture_by_picture(view: Any) -> None:
    x = randn(4, 3, SIDE, SIDE)
    assert torch.equal(view.apply(x), torch.stack([view.apply(picture) for picture in x]))


def test_a_view_is_linear_and_orthogonal_so_that_unit_noise_stays_unit_noise(view: Any) -> None:
    m, x, y = matrix(view.apply), randn(3, SIDE, SIDE), randn(3, SIDE, SIDE, seed=1)
    np.testing.assert_allclose(m @ m.T, np.eye(D), atol=1e-6)
    np.testing.assert_allclose((m @ x.numpy().ravel()).reshape(x.shape), view.apply(x), atol=1e-6)
    torch.testing.assert_close(view.apply(x + 2 * y), view.apply(x) + 2 * view.apply(y))


def test_the_variance_moves_with_the_noise_but_never_changes_sign(view: Any) -> None:
    """A variance is of squares: where the noise is carried by M, it is carried by M's squared entries."""
    noise = matrix(lambda x: view.invert(Estimate(x)).output)
    variance = matrix(lambda v: view.invert(Estimate(torch.zeros_like(v), v)).variance)
    np.testing.assert_array_equal(variance, noise**2)


def test_an_estimate_without_variance_stays_without(view: Any) -> None:
    assert view.invert(Estimate(randn(3, SIDE, SIDE))).variance is None


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotate_turns_as_numpy_does(angle: int) -> None:
    x = randn(3, SIDE, SIDE)
    turned = build("view", {"name": "rotate", "angle": angle}).apply(x)
    np.testing.assert_array_equal(turned, np.rot90(x.numpy(), angle // 90, (1, 2)))


@pytest.mark.parametrize("axis, numpys", [("vertical", np.flipud), ("horizontal", np.fliplr)])
def test_flip_turns_over_as_numpy_does(axis: str, numpys: Callable[..., Any]) -> None:
    x = randn(SIDE, SIDE)
    np.testing.assert_array_equal(build("view", {"name": "flip", "axis": axis}).apply(x), numpys(x.numpy()))


def test_negate_and_identity_are_minus_one_and_one() -> None:
    np.testing.assert_array_equal(matrix(build("view", "negate").apply), -np.eye(D))
    np.testing.assert_array_equal(matrix(build("view", "identity").apply), np.eye(D))


@pytest.mark.parametrize("patches", [1, 2, 4, 8])
def test_permute_moves_whole_patches_upright(patches: int) -> None:
    width = SIDE // patches
    x = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)

    def cut(picture: torch.Tensor) -> list[bytes]:
        tiles = picture.numpy().reshape(patches, width, patches, width).swapaxes(1, 2).reshape(-1, width, width)
        return [tile.tobytes() for tile in tiles]

    before, after = cut(x), cut(Permute(patches, seed=2).apply(x))
    assert sorted(before) == sorted(after)
    assert (before == after) == (patches == 1)


@pytest.mark.parametrize("part", [Permute, Jigsaw])
def test_a_view_with_a_seed_is_decided_by_it_alone(part: Any) -> None:
    x = torch.arange(16 * 16).reshape(16, 16)
    seen = {part(seed=seed).apply(x).numpy().tobytes() for seed in range(8)}
    again = {part(seed=seed).apply(x.clone()).numpy().tobytes() for seed in range(8)}
    assert len(seen) == 8 and seen == again


@pytest.mark.parametrize("side", [4, 8, 12, 16, 32, 36, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_jigsaw_uses_each_pixel_once(side: int, seed: int) -> None:
    moved = Jigsaw(seed).apply(torch.arange(side * side).reshape(side, side))
    assert moved.flatten().sort().values.equal(torch.arange(side * side))


@pytest.mark.parametrize("seed", range(4))
def test_a_jigsaws_pieces_turn_as_a_whole_and_interlock(seed: int) -> None:
    """Each pixel comes from one of its four quarter turns, a piece's middle as one, and only knobs cross the cut."""
    side, width = 64, 16
    picture = np.arange(side * side).reshape(side, side)
    moved = Jigsaw(seed).apply(torch.from_numpy(picture)).numpy()
    turns = np.stack([np.rot90(picture, k) for k in range(4)])
    found = turns == moved
    assert (found.sum(0) == 1).all()
    turn = found.argmax(0)

    tiles = turn.reshape(4, width, 4, width).swapaxes(1, 2)
    middles = tiles[:, :, width // 2, width // 2]
    home = np.kron(middles, np.ones((width, width), int))
    crossing = turn != home
    assert (tiles[:, :, 6:10, 6:10] == middles[:, :, None, None]).all()
    # a knob reaches 0.1 + 0.22 of a width over the cut, and stays in the middle of the side it crosses
    y, x = np.mgrid[:side, :side] % width + 0.5
    depth, across = np.minimum(y, width - y), np.abs(x - width / 2)
    knobs = [(depth, across), (np.minimum(x, width - x), np.abs(y - width / 2))]
    near = np.any([(d < 0.32 * width) & (a < 0.22 * width) for d, a in knobs], axis=0)
    assert crossing.any() and not (crossing & ~near).any()
    # and it belongs to the piece on the other side of the cut
    neighbours = np.stack([np.roll(home, shift, axis) for axis in (0, 1) for shift in (width, -width)])
    assert (neighbours == turn).any(0)[crossing].all()


@pytest.mark.parametrize(
    "settings, side, key",
    [
        ({"name": "permute", "patches": 3}, 8, "patches=3: must divide"),
        ({"name": "permute", "patches": 16}, 8, "patches=16: must divide"),
        ({"name": "jigsaw"}, 30, "view=jigsaw: needs a side divisible by 4"),
    ],
)
def test_a_view_that_does_not_fit_the_picture_says_so(settings: dict[str, Any], side: int, key: str) -> None:
    view = build("view", settings)
    view.fits(48)
    with pytest.raises(BadInput, match=f"^{key}.* {side} pixels$"):
        view.fits(side)


def test_a_view_of_ones_own_is_asked_about_both_sides(
    oblong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fits(self: Any, side: int) -> None:
        if side % 3:
            raise BadInput(f"view=flip: needs a side divisible by 3, not {side}")

    monkeypatch.setattr(Flip, "fits", fits, raising=False)
    changes = {"technique": "anagram", "view": "flip"}
    for height, width in ((9, 16), (16, 9)):
        with pytest.raises(BadInput, match=r"divisible by 3, not 16$"):
            freeze(oblong(height, width, **changes), {})
    freeze(oblong(9, 15, **changes), {})


@pytest.mark.parametrize(
    "size, settings, key",
    [
        (8, {"name": "permute", "patches": 3}, r"view\.patches=3: must divide"),
        (10, {"name": "jigsaw"}, "view=jigsaw: needs a side"),
    ],
)
def test_a_cell_names_the_key_of_a_view_that_does_not_fit(
    config: Callable[..., Any], size: int, settings: dict[str, Any], key: str
) -> None:
    from diffsweep.runner.freeze import freeze

    with pytest.raises(BadInput, match=f"^{key}"):
        freeze({**config(technique="anagram", model__size=size), "view": settings}, {})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "rotate", "angle": 45}, "view.angle=45: must be 90, 180 or 270"),
        ({"name": "flip", "axis": "vertcal"}, "view.axis=vertcal: must be one of vertical, horizontal; did you mean"),
        ({"name": "permute", "patches": 0}, "view.patches=0: must be at least 1"),
        ({"name": "flipp"}, "view=flipp: not known; there are .*; did you mean 'flip'"),
        ({"name": "jigsaw", "sed": 1}, "view.sed: unknown key of view=jigsaw; .*did you mean 'seed'"),
        ({"name": "band", "fine": 1.0, "coarse": 2.0, "kernel": 9}, "view=band: not known"),  # what hybrids are made of
    ],
)
def test_a_view_that_cannot_be_names_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        build("view", settings)
