"""The exact model, against the gradient of the log density (Tweedie: E[eps | x] = -sqrt(1 - a) grad log p(x))."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffsweep.core.schedule import named_schedule

from diffsweep.model.analytic import Analytic, GaussianMixture

SCHEDULE = named_schedule("squaredcos_cap_v2")
NAMES = ["red", "green", "blue"]
WEIGHTS = [0.5, 0.2, 0.3]


def mixture() -> tuple[GaussianMixture, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    means = torch.randn((3, 1, 2, 2), generator=g)
    root = torch.randn((3, 4, 4), generator=g, dtype=torch.float64) / 2
    covariances = root @ root.mT + 0.01 * torch.eye(4)
    return GaussianMixture(means, covariances, WEIGHTS, NAMES), means.flatten(1).double(), covariances


def log_density(x: torch.Tensor, a: float, means: Any, covariances: Any, weights: Any) -> torch.Tensor:
    parts = [
        w.log()
        + torch.distributions.MultivariateNormal(
            a**0.5 * m, a * s + (1 - a) * torch.eye(4, dtype=torch.float64)
        ).log_prob(x)
        for m, s, w in zip(means, covariances, weights, strict=True)
    ]
    return torch.stack(parts).logsumexp(0)


@pytest.mark.parametrize("t", [0, 20, 300, 700, 950, 999])
@pytest.mark.parametrize(("prompt", "named"), [("", [0, 1, 2]), ("a red and blue thing", [0, 2]), ("green", [1])])
def test_the_noise_is_the_scaled_gradient_of_the_log_density(t: int, prompt: str, named: list[int]) -> None:
    model, means, covariances = mixture()
    a = SCHEDULE.a(t)
    x = torch.randn((4, 4), generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    x = x.float().double().requires_grad_()
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)[named]
    log_p = log_density(x, a, means[named], covariances[named], weights / weights.sum()).sum()
    (score,) = torch.autograd.grad(log_p, x)
    got = model.predict(x.detach().float().view(4, 1, 2, 2), torch.full((4,), t), [prompt] * 4)
    torch.testing.assert_close(got.noise.double().flatten(1), -((1 - a) ** 0.5) * score, atol=1e-5, rtol=1e-5)
    assert got.variance is None


def test_the_noise_is_the_mean_noise_of_pairs_that_give_the_same_image() -> None:
    """By importance sampling: x_0 from the mixture, weighted by how likely x_t is given it."""
    model, means, covariances = mixture()
    t, n = 600, 400_000
    a = SCHEDULE.a(t)
    g = torch.Generator().manual_seed(1)
    k = torch.multinomial(torch.tensor(WEIGHTS), n, replacement=True, generator=g)
    roots = torch.linalg.cholesky(covariances)
    clean = means[k] + torch.einsum("nde,ne->nd", roots[k], torch.randn((n, 4), generator=g, dtype=torch.float64))
    x = torch.tensor([0.5, -0.2, 0.1, 0.3], dtype=torch.float64)
    eps = (x - a**0.5 * clean) / (1 - a) ** 0.5
    weight = (-0.5 * eps.square().sum(-1)).softmax(0)
    expected = (weight[:, None] * eps).sum(0)
    got = model.predict(x.float().view(1, 1, 2, 2), torch.tensor([t]), [""]).noise.flatten().double()
    torch.testing.assert_close(got, expected, atol=0.02, rtol=0)


def test_rows_of_one_call_may_differ_in_timestep_and_prompt() -> None:
    model, _, _ = mixture()
    x = torch.randn((3, 1, 2, 2), generator=torch.Generator().manual_seed(2))
    t, prompts = torch.tensor([10, 500, 990]), ["red", "", "a Blue dog"]
    together = model.predict(x, t, prompts).noise
    for i in range(3):
        alone = model.predict(x[i : i + 1], t[i : i + 1], prompts[i : i + 1]).noise[0]
        torch.testing.assert_close(together[i], alone)


def test_encode_counts_each_prompt_once() -> None:
    model, _, _ = mixture()
    assert model.encode(["a", "b", "a"]) == 2
    assert model.encode(["b", "c"]) == 1


def test_the_shipped_mixture_is_colours_with_smooth_fields() -> None:
    model = Analytic(size=4, spread=0.25, reach=3.0).load("cpu")
    covariance = (model.eigenvectors * model.eigenvalues[:, None]) @ model.eigenvectors.mT
    red = covariance[0].view(3, 4, 4, 3, 4, 4)
    assert red[0, 0, 0, 0, 0, 0].item() == pytest.approx(0.25**2)
    assert red[0, 0, 0, 0, 0, 3].item() == pytest.approx(0.25**2 * 2.718281828**-1)
    assert red[0, 0, 0, 1, 0, 0].item() == pytest.approx(0, abs=1e-12)
    assert model.means.view(3, 3, 4, 4)[0, :, 2, 1].tolist() == pytest.approx([0.6, -0.6, -0.6])


@pytest.mark.parametrize("change", [{"size": 5}, {"spread": 0.3}, {"reach": 2.0}])
def test_the_fingerprint_follows_what_decides_the_answers(change: dict[str, float]) -> None:
    assert Analytic().fingerprint() == Analytic().fingerprint() != Analytic(**change).fingerprint()
