"""The exact model, against the gradient of the log density (Tweedie: E[eps | x] = -sqrt(1 - a) grad log p(x))."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffsweep.core.process import Flow, named_table, zero_snr
from diffsweep.core.types import EPSILON, FLOW, SAMPLE, VELOCITY, Level, Process
from diffsweep.model.analytic import Analytic, GaussianMixture

TABLE = named_table("squaredcos_cap_v2")
NAMES = ["red", "green", "blue"]
WEIGHTS = [0.5, 0.2, 0.3]


def mixture(process: Process = TABLE, kind: str | None = None) -> tuple[GaussianMixture, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    means = torch.randn((3, 1, 2, 2), generator=g)
    root = torch.randn((3, 4, 4), generator=g, dtype=torch.float64) / 2
    covariances = root @ root.mT + 0.01 * torch.eye(4)
    return (
        GaussianMixture(means, covariances, WEIGHTS, NAMES, process, kind=kind),
        means.flatten(1).double(),
        covariances,
    )


def log_density(x: torch.Tensor, level: Level, means: Any, covariances: Any, weights: Any) -> torch.Tensor:
    parts = [
        w.log()
        + torch.distributions.MultivariateNormal(
            level.alpha * m, level.alpha**2 * s + level.sigma**2 * torch.eye(4, dtype=torch.float64)
        ).log_prob(x)
        for m, s, w in zip(means, covariances, weights, strict=True)
    ]
    return torch.stack(parts).logsumexp(0)


@pytest.mark.parametrize("process", [TABLE, Flow()], ids=["table", "flow"])
@pytest.mark.parametrize("place", [0, 20, 300, 700, 950, 999])
@pytest.mark.parametrize(("prompt", "named"), [("", [0, 1, 2]), ("a red and blue thing", [0, 2]), ("green", [1])])
def test_the_noise_is_the_scaled_gradient_of_the_log_density(
    process: Process, place: int, prompt: str, named: list[int]
) -> None:
    model, means, covariances = mixture(process, EPSILON)
    level = process.at(place)
    x = torch.randn((4, 4), generator=torch.Generator().manual_seed(place), dtype=torch.float64)
    x = x.float().double().requires_grad_()
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)[named]
    log_p = log_density(x, level, means[named], covariances[named], weights / weights.sum()).sum()
    (score,) = torch.autograd.grad(log_p, x)
    got = model.predict(x.detach().float().view(4, 1, 2, 2), [level] * 4, [prompt] * 4, {})
    torch.testing.assert_close(got.output.double().flatten(1), -level.sigma * score, atol=1e-5, rtol=1e-5)
    assert got.variance is None


def test_the_noise_is_the_mean_noise_of_pairs_that_give_the_same_image() -> None:
    """By importance sampling: x_0 from the mixture, weighted by how likely x_t is given it."""
    model, means, covariances = mixture()
    t, n = 600, 400_000
    level = TABLE.level(t)
    g = torch.Generator().manual_seed(1)
    k = torch.multinomial(torch.tensor(WEIGHTS), n, replacement=True, generator=g)
    roots = torch.linalg.cholesky(covariances)
    clean = means[k] + torch.einsum("nde,ne->nd", roots[k], torch.randn((n, 4), generator=g, dtype=torch.float64))
    x = torch.tensor([0.5, -0.2, 0.1, 0.3], dtype=torch.float64)
    eps = (x - level.alpha * clean) / level.sigma
    weight = (-0.5 * eps.square().sum(-1)).softmax(0)
    expected = (weight[:, None] * eps).sum(0)
    got = model.predict(x.float().view(1, 1, 2, 2), [level], [""], {}).output.flatten().double()
    torch.testing.assert_close(got, expected, atol=0.02, rtol=0)


def test_rows_of_one_call_may_differ_in_timestep_and_prompt() -> None:
    model, _, _ = mixture()
    x = torch.randn((3, 1, 2, 2), generator=torch.Generator().manual_seed(2))
    levels, prompts = [TABLE.level(t) for t in (10, 500, 990)], ["red", "", "a Blue dog"]
    together = model.predict(x, levels, prompts, {}).output
    for i in range(3):
        alone = model.predict(x[i : i + 1], levels[i : i + 1], prompts[i : i + 1], {}).output[0]
        torch.testing.assert_close(together[i], alone)


@pytest.mark.parametrize("process", [TABLE, Flow()], ids=["table", "flow"])
@pytest.mark.parametrize("kind", [SAMPLE, VELOCITY, FLOW])
def test_every_kind_of_answer_implies_the_same_clean_image(process: Process, kind: str) -> None:
    if kind == VELOCITY and isinstance(process, Flow):
        return  # v is defined on alpha^2 + sigma^2 = 1
    x = torch.randn((5, 1, 2, 2), generator=torch.Generator().manual_seed(2))
    levels = [process.at(place) for place in (0, 100, 400, 700, 900)]
    noise = mixture(process, EPSILON)[0].predict(x, levels, [""] * 5, {})
    answer = mixture(process, kind)[0].predict(x, levels, [""] * 5, {})
    assert answer.kind == kind
    for i, level in enumerate(levels):
        clean = (x[i] - level.sigma * noise.output[i]) / level.alpha
        found = type(answer)(answer.output[i], kind=kind).clean(x[i], level)
        torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("process", [zero_snr(TABLE), Flow()], ids=["zero snr", "flow"])
def test_of_pure_noise_the_clean_estimate_is_the_mean(process: Process) -> None:
    model, means, _ = mixture(process, SAMPLE)
    x = torch.randn((2, 1, 2, 2), generator=torch.Generator().manual_seed(2))
    answer = model.predict(x, [process.at(999)] * 2, ["red green blue", "red"], {})
    prior = (torch.tensor(WEIGHTS, dtype=torch.float64)[:, None] * means).sum(0)
    torch.testing.assert_close(answer.output.double().flatten(1), torch.stack([prior, means[0]]), atol=1e-6, rtol=0)


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


@pytest.mark.parametrize("change", [{"size": 5}, {"spread": 0.3}, {"reach": 2.0}, {"process": "flow"}])
def test_the_fingerprint_follows_what_decides_the_answers(change: dict[str, Any]) -> None:
    assert Analytic().fingerprint() == Analytic().fingerprint() != Analytic(**change).fingerprint()
