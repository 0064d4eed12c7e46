"""Theory: on a Gaussian every technique is affine in its noise, and its moments follow from Bayes' rule.

The oracle is written here in numpy and shares nothing with the code under test. A random vector is a matrix: its first
column the mean, the others what each independent unit normal contributes; a step is a few matrix products. The code's
own moments are found without sampling, from the pictures that no noise at all and each single unit of noise give.

All of it holds for a DDPM-type table and for a rectified flow, whose levels the oracle has from their definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffsweep.core.loop import asked as asked_at
from diffsweep.core.process import Flow, named_table
from diffsweep.core.streams import Streams
from diffsweep.core.types import CLEAN, Estimate, Level, Stage
from diffsweep.engine import Engine, Work
from diffsweep.guidance.classifier_free import ClassifierFree
from diffsweep.guidance.none import Unguided
from diffsweep.model.analytic import GaussianMixture
from diffsweep.scheduler.ddim import Ddim
from diffsweep.scheduler.ddpm import Ddpm
from diffsweep.scheduler.dpm_solver import DpmSolver
from diffsweep.scheduler.heun import Heun
from diffsweep.technique.anagram import Anagram
from diffsweep.technique.hybrid import Hybrid
from diffsweep.technique.image_to_image import ImageToImage
from diffsweep.technique.inpaint import Inpaint
from diffsweep.technique.iterative_denoise import IterativeDenoise
from diffsweep.technique.job import Job
from diffsweep.technique.one_step_denoise import OneStepDenoise
from diffsweep.technique.text_to_image import TextToImage
from diffsweep.view.flip import Flip
from diffsweep.view.identity import Identity
from diffsweep.view.negate import Negate
from diffsweep.view.rotate import Rotate

SIDE = 4
D = SIDE * SIDE
TABLE = named_table("squaredcos_cap_v2")
PROCESSES = {"table": TABLE, "flow": Flow()}
STAGES = {name: Stage((1, SIDE, SIDE), process) for name, process in PROCESSES.items()}
TABLES = {t: (math.sqrt(a), math.sqrt(1 - a)) for t, a in enumerate(TABLE.alphas_cumprod)}
I = np.eye(D)  # noqa: E741
RNG = np.random.default_rng(4)
MEANS = {name: RNG.normal(size=D) / 2 for name in ("red", "blue")}
ROOTS = {name: RNG.normal(size=(D, D)) / 6 for name in ("red", "blue")}
COVARIANCES = {name: root @ root.T + 0.02 * I for name, root in ROOTS.items()}
KNOWN = RNG.uniform(-0.9, 0.9, size=D)
MASK = np.round(RNG.uniform(size=D) * 4) / 4

Vector = np.ndarray  # D x (1 + number of unit normals)
Noise = Callable[[Vector, int], Vector]


@pytest.fixture(params=PROCESSES, autouse=True)
def process(request: pytest.FixtureRequest) -> Any:
    """The process under which every test runs."""
    NOW["name"] = request.param
    return PROCESSES[request.param]


NOW = {"name": "table"}


def signal(t: int) -> float:
    """alpha at t."""
    if t == CLEAN:
        return 1.0
    return TABLES[t][0] if NOW["name"] == "table" else 1 - t / 1000


def spread(t: int) -> float:
    """sigma at t."""
    if t == CLEAN:
        return 0.0
    return TABLES[t][1] if NOW["name"] == "table" else t / 1000


# -- the oracle ------------------------------------------------------------------------------------------------------
def fresh(x: Vector, root: np.ndarray) -> Vector:
    """x + root z, z new."""
    return np.hstack([x, root])


def plus(x: Vector, constant: np.ndarray) -> Vector:
    return np.hstack([x[:, :1] + constant[:, None], x[:, 1:]])


def exact(name: str) -> Noise:
    """E[eps | x_t] of one Gaussian."""

    def noise(x: Vector, t: int) -> Vector:
        G = spread(t) * np.linalg.inv(signal(t) ** 2 * COVARIANCES[name] + spread(t) ** 2 * I)
        return G @ plus(x, -signal(t) * MEANS[name])

    return noise


def clean_of(x: Vector, eps: Vector, t: int) -> Vector:
    return (x - spread(t) * eps) / signal(t)


def precisions(t: int, s: int) -> tuple[float, float, float]:
    """Of x_s: what x_t says of it, and what x_0 says; x_t = carried x_s + noise."""
    carried = signal(t) / signal(s)
    return carried**2 / (spread(t) ** 2 - carried**2 * spread(s) ** 2), 1 / spread(s) ** 2, carried


def ancestral(x: Vector, eps: Vector, t: int, s: int, memory: Any) -> tuple[Vector, Any]:
    """x_s given x_t and x_0, by Bayes' rule: precisions add up."""
    clean = clean_of(x, eps, t)
    if s == CLEAN:
        return clean, None
    likelihood, prior, carried = precisions(t, s)
    mean = (likelihood * x / carried + prior * signal(s) * clean) / (likelihood + prior)
    return fresh(mean, I / math.sqrt(likelihood + prior)), None


def flow(x: Vector, eps: Vector, t: int, s: int, memory: Any) -> tuple[Vector, Any]:
    """Euler's step of the probability flow, d(x / alpha) = eps d(sigma / alpha)."""
    ratio_t, ratio_s = (spread(u) / signal(u) for u in (t, s))
    return signal(s) * (x / signal(t) + (ratio_s - ratio_t) * eps), None


def second_order(x: Vector, eps: Vector, t: int, s: int, memory: Any) -> tuple[Vector, Any]:
    """DPM-Solver++(2M) as k-diffusion writes it, in y = x / alpha."""
    clean = clean_of(x, eps, t)
    if s == CLEAN:
        return clean, None
    ratio_t, ratio_s = (spread(u) / signal(u) for u in (t, s))
    h = math.log(ratio_t / ratio_s)
    denoised = clean
    if memory is not None:
        old, h_last = memory
        old = np.pad(old, ((0, 0), (0, clean.shape[1] - old.shape[1])))  # it owes nothing to normals drawn since
        r = h_last / h
        denoised = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * old
    y = ratio_s / ratio_t * x / signal(t) - math.expm1(-h) * denoised
    return signal(s) * y, (clean, h)


def heun(x: Vector, t: int, s: int, noise: Noise) -> Vector:
    """The trapezoidal rule for d(x / alpha) = eps d(sigma / alpha), from Euler's step (EDM, algorithm 1)."""
    first = noise(x, t)
    tried, _ = flow(x, first, t, s, None)
    if s == CLEAN:
        return tried
    ratio_t, ratio_s = (spread(u) / signal(u) for u in (t, s))
    return signal(s) * (x / signal(t) + (ratio_s - ratio_t) * (first + noise(tried, s)) / 2)


def chain(x: Vector, timesteps: list[int], noise: Noise, rule: Callable[..., Any], pin: Any = None) -> Vector:
    memory = None
    for t, s in zip(timesteps, [*timesteps[1:], CLEAN], strict=True):
        if s > t:  # back up: the forward process
            carried = signal(s) / signal(t)
            x, memory = fresh(carried * x, math.sqrt(spread(s) ** 2 - carried**2 * spread(t) ** 2) * I), None
            continue
        if rule is heun:
            x = heun(x, t, s, noise)
        else:
            x, memory = rule(x, noise(x, t), t, s, memory)
        if pin is not None:
            x = pin(x, s)
    return x


def from_noise() -> Vector:
    return fresh(np.zeros((D, 1)), I)


def from_input(t: int) -> Vector:
    return fresh(signal(t) * KNOWN[:, None], spread(t) * I)


def moments(x: Vector) -> tuple[np.ndarray, np.ndarray]:
    return x[:, 0], x[:, 1:] @ x[:, 1:].T


# -- the code under test ---------------------------------------------------------------------------------------------
@dataclass
class Probe:
    """Streams that hold no noise, but for a single unit in one draw of one stream."""

    stream: str = ""
    draw: int = 0
    pixel: int = 0
    drawn: dict[str, int] = field(default_factory=dict)

    def normal(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.zeros(shape)
        if (name, self.drawn.get(name, 0)) == (self.stream, self.draw):
            noise.view(-1)[self.pixel] = 1
        self.drawn[name] = self.drawn.get(name, 0) + 1
        return noise


def model() -> GaussianMixture:
    means = torch.tensor(np.stack(list(MEANS.values()))).view(2, 1, SIDE, SIDE)
    covariances = torch.tensor(np.stack(list(COVARIANCES.values())))
    return GaussianMixture(means, covariances, [0.5, 0.5], list(MEANS), PROCESSES[NOW["name"]])


def at(timesteps: list[int]) -> tuple[Level, ...]:
    return tuple(PROCESSES[NOW["name"]].level(t) for t in timesteps)


def code_moments(technique: Any, timesteps: list[int], scheduler: Any, **parts: Any) -> tuple[np.ndarray, np.ndarray]:
    stage = STAGES[NOW["name"]]
    visited = technique.visited(at(timesteps), stage)

    def pictures(probes: list[Probe]) -> np.ndarray:
        def started(probe: Probe) -> Callable[[], Any]:
            settings = {"prompt": "red", "guidance": Unguided(), **parts}
            image, mask = (torch.tensor(v).float().view(1, SIDE, SIDE) for v in (KNOWN, MASK))
            job = Job(
                levels=visited,
                stage=stage,
                scheduler=scheduler,
                streams=probe,  # type: ignore[arg-type]
                **{"image": image, "mask": mask, **settings},
            )
            return lambda: technique.program(job)

        works = [
            Work(i, started(probe), len(asked_at(visited, scheduler, stage.process))) for i, probe in enumerate(probes)
        ]
        ended = sorted(Engine({"base": model()}, 64).run(works), key=lambda end: end.owner)
        assert not [end.error for end in ended if end.error]
        return np.stack([end.result.image.double().flatten().numpy() for end in ended], axis=1)

    still = Probe()
    mean = pictures([still])
    units = [Probe(name, k, i) for name, n in still.drawn.items() for k in range(n) for i in range(D)]
    return moments(np.hstack([mean, pictures(units) - mean]))


def assert_moments(ours: tuple[np.ndarray, np.ndarray], theory: Vector, tolerance: float = 2e-4) -> None:
    for got, expected in zip(ours, moments(theory), strict=True):
        np.testing.assert_allclose(got, expected, atol=tolerance * max(1.0, np.abs(expected).max()), rtol=0)


LEADING = [750, 500, 250, 1]
UNEVEN = [970, 600, 599, 120, 30]
RULES: dict[str, tuple[Any, Any]] = {
    "ddpm": (Ddpm(threshold="none"), ancestral),
    "ddim eta 0": (Ddim(threshold="none"), flow),
    "ddim eta 1": (Ddim(threshold="none", eta=1.0), ancestral),
    "dpm_solver": (DpmSolver(threshold="none"), second_order),
    "heun": (Heun(threshold="none"), heun),
}
rules = pytest.mark.parametrize(("scheduler", "rule"), RULES.values(), ids=RULES)
trajectories = pytest.mark.parametrize("timesteps", [LEADING, UNEVEN], ids=["leading", "uneven"])


@rules
@trajectories
def test_text_to_image_has_the_recursions_moments(scheduler: Any, rule: Any, timesteps: list[int]) -> None:
    ours = code_moments(TextToImage(), timesteps, scheduler)
    assert_moments(ours, chain(from_noise(), timesteps, exact("red"), rule))


@rules
def test_guidance_extrapolates_from_the_negative_prompt(scheduler: Any, rule: Any) -> None:
    def noise(x: Vector, t: int) -> Vector:
        return -1.5 * exact("blue")(x, t) + 2.5 * exact("red")(x, t)

    ours = code_moments(TextToImage(), LEADING, scheduler, guidance=ClassifierFree(2.5, "blue"))
    assert_moments(ours, chain(from_noise(), LEADING, noise, rule), 1e-3)


@rules
@pytest.mark.parametrize("t", [900, 500, 499, 10])
def test_iterative_denoise_starts_at_t_itself(scheduler: Any, rule: Any, t: int) -> None:
    visited = [t, *(s for s in LEADING if s < t)]
    ours = code_moments(IterativeDenoise(t), LEADING, scheduler)
    assert_moments(ours, chain(from_input(t), visited, exact("red"), rule))


@rules
@pytest.mark.parametrize("start", [0, 2, 4])
def test_image_to_image_starts_from_the_noised_input(scheduler: Any, rule: Any, start: int) -> None:
    ours = code_moments(ImageToImage(start_index=start), UNEVEN, scheduler)
    assert_moments(ours, chain(from_input(UNEVEN[start]), UNEVEN[start:], exact("red"), rule))


@pytest.mark.parametrize("t", [1, 400, 900])
def test_one_step_denoise_is_the_posterior_mean(t: int) -> None:
    a, b = signal(t), spread(t)
    gain = a * COVARIANCES["red"] @ np.linalg.inv(a**2 * COVARIANCES["red"] + b**2 * I)
    theory = plus(gain @ plus(from_input(t), -a * MEANS["red"]), MEANS["red"])
    assert_moments(code_moments(OneStepDenoise(t), LEADING, Ddpm()), theory)


def known_at(s: int, renoise: bool) -> tuple[np.ndarray, np.ndarray]:
    if s == CLEAN or not renoise:
        return KNOWN, np.zeros((D, 0))
    return signal(s) * KNOWN, spread(s) * I


def joined(x: Vector, m: np.ndarray, s: int, renoise: bool) -> Vector:
    known, root = known_at(s, renoise)
    return fresh(plus(m[:, None] * x, (1 - m) * known), (1 - m)[:, None] * root)


@rules
@pytest.mark.parametrize("known", ["renoised", "clean"])
@pytest.mark.parametrize("start", ["noise", "input"])
def test_inpaint_joins_the_known_region_at_every_step(scheduler: Any, rule: Any, known: str, start: str) -> None:
    renoise = known == "renoised"
    x = from_noise() if start == "noise" else from_input(UNEVEN[0])
    if not renoise:
        x = joined(x, MASK, CLEAN, False)
    theory = chain(x, UNEVEN, exact("red"), rule, lambda x, s: joined(x, MASK, s, renoise))
    assert_moments(code_moments(Inpaint(known=known, start=start), UNEVEN, scheduler), theory)


def repainted(timesteps: list[int], jump: int, resamples: int) -> list[int]:
    """RePaint's trajectory: each stretch of `jump` steps, from the last one on, is walked `resamples` times."""
    n = len(timesteps)
    turns = {n - 1 - place: resamples - 1 for place in range(0, n - jump, jump)}
    walk, i = [timesteps[0]], 0
    while i < n - 1 or turns.get(i):
        up = turns.get(i, 0) > 0
        turns[i] = turns.get(i, 0) - up
        i = i - jump if up else i + 1
        walk.append(timesteps[i])
    return walk


@rules
@pytest.mark.parametrize(("jump", "resamples"), [(1, 2), (2, 3)])
def test_repaint_goes_back_up_by_the_forward_process(scheduler: Any, rule: Any, jump: int, resamples: int) -> None:
    walk = repainted(LEADING, jump, resamples)
    assert len(walk) > len(LEADING)
    theory = chain(from_noise(), walk, exact("red"), rule, lambda x, s: joined(x, MASK, s, True))
    ours = code_moments(Inpaint(jump=jump, resamples=resamples), LEADING, scheduler)
    assert_moments(ours, theory)


@rules
@pytest.mark.parametrize("strength", [1.0, 0.8])
def test_a_change_map_holds_a_pixel_while_the_remaining_share_exceeds_its_m(
    scheduler: Any, rule: Any, strength: float
) -> None:
    visited = UNEVEN[len(UNEVEN) - int(strength * len(UNEVEN)) :]
    n = len(visited)
    taken = iter(range(n))

    def pin(x: Vector, s: int) -> Vector:
        remaining = 1 - next(taken) / n  # before the step just taken
        return joined(x, (remaining <= MASK + 1e-12).astype(float), s, True)

    theory = chain(from_input(visited[0]), visited, exact("red"), rule, pin)
    ours = code_moments(Inpaint("change_map", start="input", strength=strength), UNEVEN, scheduler)
    assert_moments(ours, theory)


def matrix(view: Any) -> np.ndarray:
    """A linear map of pictures as a matrix, from numpy's own flips and turns."""
    return np.stack([view(e.reshape(SIDE, SIDE)).ravel() for e in I], axis=1)


VIEWS: dict[str, tuple[Any, np.ndarray]] = {
    "flip": (Flip(), matrix(np.flipud)),
    "mirror": (Flip("horizontal"), matrix(np.fliplr)),
    "quarter turn": (Rotate(90), matrix(np.rot90)),
    "negative": (Negate(), -I),
}


@rules
@pytest.mark.parametrize("view", VIEWS)
def test_an_anagram_averages_what_its_views_say(scheduler: Any, rule: Any, view: str) -> None:
    part, V = VIEWS[view]

    def noise(x: Vector, t: int) -> Vector:
        return (exact("red")(x, t) + V.T @ exact("blue")(V @ x, t)) / 2

    ours = code_moments(Anagram(("red", "blue")), LEADING, scheduler, view=part)
    assert_moments(ours, chain(from_noise(), LEADING, noise, rule))


def test_an_anagram_of_three_views_averages_all_three() -> None:
    F, R = VIEWS["flip"][1], VIEWS["quarter turn"][1]

    def noise(x: Vector, t: int) -> Vector:
        seen = [exact("red")(x, t), F.T @ exact("blue")(F @ x, t), R.T @ exact("red")(R @ x, t)]
        return sum(seen) / 3

    technique = Anagram(("red", "blue", "red"), (Identity(), Flip(), Rotate(90)))
    ours = code_moments(technique, LEADING, Ddpm(threshold="none"))
    assert_moments(ours, chain(from_noise(), LEADING, noise, ancestral))


def blur_matrix(sigma: float) -> np.ndarray:
    return matrix(lambda image: gaussian_filter(image, sigma, mode="mirror", radius=SIDE - 1))


@rules
def test_a_hybrid_adds_up_frequency_bands_of_the_noise(scheduler: Any, rule: Any) -> None:
    low = blur_matrix(1.5)

    def noise(x: Vector, t: int) -> Vector:
        return low @ exact("red")(x, t) + (I - low) @ exact("blue")(x, t)

    ours = code_moments(Hybrid(("red", "blue"), 1.5), LEADING, scheduler)
    assert_moments(ours, chain(from_noise(), LEADING, noise, rule))


def test_a_hybrid_of_three_bands() -> None:
    lowest, low = blur_matrix(2.0), blur_matrix(0.8)

    def noise(x: Vector, t: int) -> Vector:
        red, blue = exact("red")(x, t), exact("blue")(x, t)
        return lowest @ red + (low - lowest) @ blue + (I - low) @ red

    ours = code_moments(Hybrid(("red", "blue", "red"), (2.0, 0.8)), LEADING, Ddpm(threshold="none"))
    assert_moments(ours, chain(from_noise(), LEADING, noise, ancestral))


# -- real noise, many samples -----------------------------------------------------------------------------------------
class Pairs:
    """A model of one picture that holds many independent samples: pixels 2i and 2i + 1 of a row are a pair."""

    def __init__(self, mixture: GaussianMixture, wide: int) -> None:
        self.mixture = mixture
        self.stage = Stage((1, wide, wide), mixture.stage.process)

    def encode(self, prompts: Any) -> int:
        return self.mixture.encode(prompts)

    def predict(self, x: torch.Tensor, levels: Any, prompts: Any, beside: Any) -> Estimate:
        (prompt,) = set(prompts)
        pairs = x.reshape(-1, 1, 1, 2)
        each = [level for level in levels for _ in range(len(pairs) // len(x))]
        answer = self.mixture.predict(pairs, each, [prompt] * len(pairs), {})
        return replace(answer, output=answer.output.reshape(x.shape))


def pair_model(means: list[list[float]], covariance: list[list[float]], weights: list[float], wide: int = 128) -> Pairs:
    """`wide`: its picture holds wide x wide / 2 pairs."""
    n = len(means)
    covariances = torch.tensor(covariance).expand(n, 2, 2)
    names = [str(i) for i in range(n)]
    process = PROCESSES[NOW["name"]]
    return Pairs(GaussianMixture(torch.tensor(means).view(n, 1, 1, 2), covariances, weights, names, process), wide)


def pair_pictures(
    technique: Any, pairs: Pairs, scheduler: Any, streams: list[Any], clean: Any = None, mask: Any = None
) -> list[np.ndarray]:
    """A picture for each of `streams`, as N x 2 pairs; `clean` and `mask` say what each pair is given."""

    def started(noise: Any) -> Callable[[], Any]:
        stage = pairs.stage
        wide = stage.shape[-1]
        given = [None if v is None else torch.tensor(v).repeat(wide // 2).expand(1, wide, wide) for v in (clean, mask)]
        levels = technique.visited(scheduler.levels(stage), stage)
        job = Job("", levels, stage, scheduler, Unguided(), noise, *given)
        return lambda: technique.program(job)

    works = [Work(i, started(noise), 1) for i, noise in enumerate(streams)]
    ended = sorted(Engine({"base": pairs}, len(streams)).run(works), key=lambda end: end.owner)
    assert not [end.error for end in ended if end.error]
    return [end.result.image.double().view(-1, 2).numpy() for end in ended]


def pair_samples(technique: Any, pairs: Pairs, scheduler: Any, cells: int) -> np.ndarray:
    """N x 2 samples from `cells` pictures of seeds 0, 1, ..."""
    return np.concatenate(pair_pictures(technique, pairs, scheduler, [Streams(seed) for seed in range(cells)]))


def test_seeds_give_independent_samples_with_the_recursions_moments() -> None:
    mean, covariance = np.array([0.2, -0.3]), np.array([[0.25, 0.15], [0.15, 0.16]])
    scheduler = Ddpm(6, "linspace", "none")
    samples = pair_samples(TextToImage(), pair_model([list(mean)], covariance.tolist(), [1.0]), scheduler, 6)

    x = np.hstack([np.zeros((2, 1)), np.eye(2)])
    timesteps: list[Any] = [level.t for level in scheduler.levels(STAGES[NOW["name"]])]
    for t, s in zip(timesteps, [*timesteps[1:], CLEAN], strict=True):
        a, b = signal(t), spread(t)
        gain = a * covariance @ np.linalg.inv(a**2 * covariance + b**2 * np.eye(2))
        clean = plus(gain @ plus(x, -a * mean), mean)  # also where a is 0
        if s == CLEAN:
            x = clean
            break
        carried = a / signal(s)
        likelihood, prior = carried / (b**2 - carried**2 * spread(s) ** 2), 1 / spread(s) ** 2
        precision = carried * likelihood + prior
        x = np.hstack([(likelihood * x + prior * signal(s) * clean) / precision, np.eye(2) / math.sqrt(precision)])
    expected_mean, expected = moments(x)
    n = len(samples)
    deviation = np.sqrt(np.diag(expected))
    assert np.all(np.abs(samples.mean(0) - expected_mean) < 4.5 * deviation / math.sqrt(n))
    doubt = np.sqrt((np.outer(deviation**2, deviation**2) + expected**2) / n)
    assert np.all(np.abs(np.cov(samples.T) - expected) < 4.5 * doubt)


@pytest.mark.slow
def test_a_mixtures_modes_come_in_their_proportions() -> None:
    pairs = pair_model([[-0.6, -0.6], [0.6, 0.6], [0.6, -0.6]], [[0.01, 0.0], [0.0, 0.01]], [0.2, 0.5, 0.3])
    samples = pair_samples(TextToImage(), pairs, Ddpm(60, "trailing", "none"), 2)
    modes = np.array([[-0.6, -0.6], [0.6, 0.6], [0.6, -0.6]])
    distance = np.linalg.norm(samples[:, None] - modes, axis=-1)
    shares = np.bincount(distance.argmin(1), minlength=3) / len(samples)
    for share, weight in zip(shares, [0.2, 0.5, 0.3], strict=True):
        assert abs(share - weight) < 0.01 + 4.5 * math.sqrt(weight * (1 - weight) / len(samples))
    assert (distance.min(1) < 0.5).mean() > 0.99


@dataclass
class Units:
    """Streams whose k-th draw, of any name, is a unit in each pixel of a pair, on two pairs of its own."""

    drawn: int = 0

    def normal(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.zeros(shape)
        pairs = noise.view(-1, 2)
        assert 2 * self.drawn + 2 < len(pairs), "more draws than pairs"
        pairs[2 * self.drawn, 0] = pairs[2 * self.drawn + 1, 1] = 1
        self.drawn += 1
        return noise


def pair_moments(technique: Any, pairs: Pairs, scheduler: Any, *given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Exact moments from one picture: each of its pairs follows another unit of the noise."""
    units = pair_pictures(technique, pairs, scheduler, [Units()], *given)[0]
    return units[-1], (units - units[-1]).T @ (units - units[-1])


S = [[0.30, 0.18], [0.18, 0.20]]
M = [0.3, -0.2]


@pytest.mark.slow
def test_at_a_thousand_steps_text_to_image_is_the_prior() -> None:
    mean, covariance = pair_moments(TextToImage(), pair_model([M], S, [1.0], wide=64), Ddpm(1000, threshold="none"))
    np.testing.assert_allclose(mean, M, rtol=0.02)
    np.testing.assert_allclose(covariance, S, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("t", [700, 300])
def test_at_a_thousand_steps_iterative_denoise_is_the_posterior(t: int) -> None:
    """The input is noised to t, so the samples are the posterior's, averaged over what noise did to the input."""
    clean = [0.5, 0.4]
    model = pair_model([M], S, [1.0], wide=64)
    mean, covariance = pair_moments(IterativeDenoise(t), model, Ddpm(1000, threshold="none"), clean)
    prior, a, b = np.array(S), signal(t), spread(t)
    gain = a * prior @ np.linalg.inv(a**2 * prior + b**2 * np.eye(2))
    expected = prior - a * gain @ prior + b**2 * gain @ gain.T
    np.testing.assert_allclose(mean, M + gain @ (a * (np.array(clean) - M)), rtol=0.02)
    np.testing.assert_allclose(covariance, expected, rtol=0.02)


@pytest.mark.parametrize("n", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_replacement_inpainting_is_biased_towards_the_mean(n: int) -> None:
    """Correlation 0.9 and a known pixel of 0.6: the true conditional mean is 0.54, replacement gives less."""
    pairs = pair_model([[0.0, 0.0]], [[1.0, 0.9], [0.9, 1.0]], [1.0], wide={100: 32, 1000: 96}[n])
    mean, covariance = pair_moments(Inpaint(), pairs, Ddpm(n, threshold="none"), [0.6, 0.0], [0.0, 1.0])
    assert mean[0] == np.float32(0.6) and covariance[0, 0] == 0
    low, high = {"table": (0.36, 0.38), "flow": (0.30, 0.45)}[NOW["name"]]
    assert low < mean[1] < high


def test_repaint_brings_the_bias_of_replacement_down() -> None:
    """The new pixel's mean and variance, of which 0.54 and 0.19 are the true posterior's, by resamplings."""
    pairs = pair_model([[0.0, 0.0]], [[1.0, 0.9], [0.9, 1.0]], [1.0], wide=48)
    found = []
    for resamples in (1, 2, 5, 10):
        technique = Inpaint(jump=2, resamples=resamples)
        mean, covariance = pair_moments(technique, pairs, Ddpm(20, threshold="none"), [0.6, 0.0], [0.0, 1.0])
        found.append((0.54 - mean[1], covariance[1, 1]))
    biases = [bias for bias, _ in found]
    assert all(0 < later < earlier for earlier, later in pairwise(biases)), found
    assert biases[-1] < biases[0] / 4, found
