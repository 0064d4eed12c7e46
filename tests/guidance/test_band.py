"""Bands of spatial frequencies, against scipy's Gaussian filter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffsweep.core.types import Estimate
from diffsweep.guidance.band import Band, bands, blur

SIDE = 8


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inverted(band: Band, x: torch.Tensor) -> torch.Tensor:
    return band.invert(Estimate(x)).output


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("kernel", [5, 9, 15])
def test_the_blur_is_scipys(sigma: float, kernel: int) -> None:
    x = randn(2, 3, 16, 16)
    expected = gaussian_filter(x.double().numpy(), sigma, mode="mirror", radius=kernel // 2, axes=(-2, -1))
    np.testing.assert_allclose(blur(x, sigma, kernel), expected, atol=1e-6)


@pytest.mark.parametrize("leading", [(), (2, 4, 3)])
def test_the_blur_takes_any_leading_dimensions(leading: tuple[int, ...]) -> None:
    x = randn(*leading, SIDE, SIDE)
    expected = gaussian_filter(x.double().numpy(), 1.5, mode="mirror", radius=4, axes=(-2, -1))
    np.testing.assert_allclose(blur(x, 1.5, 9), expected, atol=1e-6)


def test_a_kernel_wider_than_the_picture_is_cut_to_what_reflection_allows() -> None:
    x = randn(3, SIDE, SIDE)
    expected = gaussian_filter(x.double().numpy(), 2.0, mode="mirror", radius=SIDE - 1, axes=(-2, -1))
    np.testing.assert_allclose(blur(x, 2.0, 33), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 12), (12, 4)])
def test_a_kernel_is_cut_along_the_side_that_it_is_wider_than(shape: tuple[int, int]) -> None:
    x = randn(3, *shape)
    radii = [min(10, side - 1) for side in shape]
    expected = gaussian_filter(x.double().numpy(), 3.0, mode="mirror", radius=radii, axes=(-2, -1))
    np.testing.assert_allclose(blur(x, 3.0, 21), expected, atol=1e-6)


@pytest.mark.parametrize("sigmas", [(2.0,), (3.0, 1.0), (4.0, 2.0, 0.5)])
def test_bands_add_up_to_the_identity_and_run_from_low_to_high(sigmas: tuple[float, ...]) -> None:
    x, parts = randn(3, 16, 16), bands(sigmas, 15)
    assert len(parts) == len(sigmas) + 1
    torch.testing.assert_close(sum(inverted(part, x) for part in parts), x, rtol=0, atol=1e-5)
    blurs = [gaussian_filter(x.double().numpy(), s, mode="mirror", radius=7, axes=(1, 2)) for s in sigmas]
    kept = [np.zeros(x.shape), *blurs, x.numpy()]
    for part, (coarse, fine) in zip(parts, pairwise(kept), strict=True):
        np.testing.assert_allclose(inverted(part, x), fine - coarse, atol=1e-5)


def test_a_high_pass_removes_what_is_flat_and_a_low_pass_keeps_it() -> None:
    flat = torch.full((3, SIDE, SIDE), 0.7)
    low, high = bands((2.0,), 9)
    torch.testing.assert_close(inverted(low, flat), flat)
    torch.testing.assert_close(inverted(high, flat), torch.zeros_like(flat))


def test_a_band_looks_at_the_whole_picture_and_filters_the_noise_alone() -> None:
    x, variance = randn(3, SIDE, SIDE), randn(3, SIDE, SIDE, seed=1)
    band = Band(1.0, 2.0, 9)
    assert torch.equal(band.apply(x), x)
    answer = band.invert(Estimate(x, variance))
    assert answer.variance is not None and torch.equal(answer.variance, variance)
    assert not torch.allclose(answer.output, x, atol=0.1)
