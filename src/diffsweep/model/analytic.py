"""A model that is exactly right: a Gaussian mixture, whose noise estimate is known in closed form.

For x_t = sqrt(a) x_0 + sqrt(1 - a) eps with x_0 from component k, N(mu_k, S_k), x_t is N(sqrt(a) mu_k, C_k) with
C_k = a S_k + (1 - a) I, and

    E[eps | x_t] = sqrt(1 - a) sum_k r_k C_k^-1 (x_t - sqrt(a) mu_k),    r_k the responsibilities.

A prompt that names components restricts the mixture to them; any other prompt means the whole mixture. Use it to test
techniques against theory, or to try a sweep in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.problems import require, within
from diffsweep.core.schedule import NoiseSchedule, named_schedule
from diffsweep.core.types import Estimate, Given, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

COLOURS = {"red": (0.6, -0.6, -0.6), "green": (-0.6, 0.6, -0.6), "blue": (-0.6, -0.6, 0.6)}


class GaussianMixture:
    """The exact model. means: K C H W; covariances: K D D with D = C H W; weights: K; names: one a component."""

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor,
        weights: Sequence[float],
        names: Sequence[str],
        schedule: NoiseSchedule | None = None,
        device: str = "cpu",
    ) -> None:
        import torch

        schedule = schedule or named_schedule("squaredcos_cap_v2")
        _, c, h, w = means.shape
        self.stage = Stage((c, h, w), schedule)
        self.names = list(names)
        self.means = means.flatten(1).double().to(device)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariances.double())
        self.eigenvalues, self.eigenvectors = eigenvalues.to(device), eigenvectors.to(device)
        self.log_weights = torch.tensor(weights, dtype=torch.float64, device=device).log()
        self.a = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64, device=device)
        self._known: set[str] = set()
        self._loads = 1

    def encode(self, prompts: Sequence[str]) -> int:
        fresh = set(prompts) - self._known
        self._known |= fresh
        return len(fresh)

    def ready(self) -> int:
        loads, self._loads = self._loads, 0
        return loads

    def chosen(self, prompt: str) -> list[bool]:
        """Which components a prompt means: those it names, or all."""
        words = prompt.lower().split()
        named = [name in words for name in self.names]
        return named if any(named) else [True] * len(named)

    def predict(self, x: Tensor, t: Tensor, prompts: Sequence[str], given: Given | None = None) -> Estimate:
        import torch

        a = self.a[t.to(self.a.device)][:, None, None]
        mask = torch.tensor([self.chosen(p) for p in prompts], device=x.device)
        apart = x.flatten(1).double()[:, None] - a.sqrt() * self.means  # B K D
        turned = torch.einsum("bkd,kde->bke", apart, self.eigenvectors)
        spread = a * self.eigenvalues + (1 - a)
        log_r = self.log_weights - 0.5 * (turned.square() / spread + spread.log()).sum(-1)
        r = log_r.masked_fill(~mask, -torch.inf).softmax(-1)
        scaled = torch.einsum("bke,kde->bkd", turned / spread, self.eigenvectors)
        noise = (1 - a[:, 0]).sqrt() * (r[..., None] * scaled).sum(1)
        return Estimate(noise.float().reshape(x.shape))

    def finish(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Analytic:
    """Smooth fields around three colours. size: pixels a side; spread: standard deviation of a pixel; reach: the
    correlation length in pixels."""

    size: int = 8
    spread: float = 0.25
    reach: float = 3.0

    def __post_init__(self) -> None:
        require(
            within("size", self.size, 1, 32), within("spread", self.spread, 1e-3, 10), within("reach", self.reach, 1e-3)
        )

    def stage(self) -> Stage:
        return Stage((3, self.size, self.size), named_schedule("squaredcos_cap_v2"))

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self, sorted(COLOURS.items()))).encode()).hexdigest()

    def load(self, device: str, kept: Path | None = None) -> GaussianMixture:
        import torch

        n = self.size
        places = torch.cartesian_prod(torch.arange(n), torch.arange(n)).double()
        field = self.spread**2 * torch.exp(-torch.cdist(places, places) / self.reach)
        covariance = torch.kron(torch.eye(3, dtype=torch.float64), field)
        means = torch.tensor(list(COLOURS.values()))[:, :, None, None].expand(-1, -1, n, n)
        weights = [1 / len(COLOURS)] * len(COLOURS)
        covariances = covariance.expand(len(COLOURS), -1, -1)
        return GaussianMixture(means, covariances, weights, list(COLOURS), self.stage().schedule, device)
