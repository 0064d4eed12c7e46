"""Drift and seam, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from diffsweep.metric import Batch
from diffsweep.metric.edit import Drift, Seam

SIDE = 12
MASK = np.zeros((1, SIDE, SIDE), np.uint8)
MASK[:, 4:8, 4:8] = 255
RAMP = np.broadcast_to(np.arange(SIDE)[:, None] * 7 + np.arange(SIDE) * 3, (SIDE, SIDE))


def coloured(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[None, ..., None], 3, axis=-1).astype(np.uint8)


def seam(image: np.ndarray, mask: np.ndarray = MASK) -> float | None:
    return Seam()(Batch(image, masks=mask))[0].value


def test_a_flat_patch_on_a_flat_ground_has_its_step_as_seam() -> None:
    assert seam(coloured(np.where(MASK[0] > 0, 150, 110))) == 40


def test_a_ramp_has_no_seam_whatever_the_mask() -> None:
    assert seam(coloured(RAMP)) == 0
    assert seam(coloured(RAMP), MASK // 2 + MASK % 2) == 0  # 128: m = 1/2 is within


def test_a_patch_on_a_ramp_has_its_own_step_as_seam() -> None:
    assert seam(coloured(RAMP + np.where(MASK[0] > 0, 40, 0))) == 40


def test_the_seam_is_that_of_its_definition_pixel_by_pixel() -> None:
    rng = np.random.default_rng(8)
    image = rng.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.where(rng.random((1, SIDE, SIDE)) < 0.4, 200, 60).astype(np.uint8)
    x, m = image[0].astype(float), mask[0] >= 128
    jumps = []
    for i in range(SIDE):
        for j in range(1, SIDE - 2):
            for y, inside in ((x[i], m[i]), (x[:, i], m[:, i])):
                if inside[j] != inside[j + 1]:
                    a, b, c, d = y[j - 1 : j + 3]
                    jumps.append(abs((c - b) - ((b - a) + (d - c)) / 2))
    assert seam(image, mask) == pytest.approx(np.mean(jumps), abs=1e-6)


def test_a_mask_without_a_contour_has_no_seam_and_says_why() -> None:
    (score,) = Seam()(Batch(coloured(RAMP), masks=np.full_like(MASK, 255)))
    assert score.value is None and score.reason == "the mask has no contour within the picture"


def test_drift_is_the_mean_distance_of_the_known_region_alone() -> None:
    image = coloured(RAMP)
    moved = image.copy()
    moved[:, 4:8, 4:8] = 255  # regenerated: does not count
    moved[:, 0, :] += 24  # 12 of 144 - 16 known pixels
    (score,) = Drift()(Batch(moved, image, MASK))
    assert score.value == pytest.approx(24 * 12 / 128, abs=1e-6)
    assert Drift()(Batch(image, image, MASK))[0].value == 0
    assert Drift()(Batch(image, image, np.full_like(MASK, 9)))[0].reason == "no pixel has m = 0"
