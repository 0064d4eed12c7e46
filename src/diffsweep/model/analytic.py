"""A model that is exactly right: a Gaussian mixture, whose noise estimate is known in closed form.

For x = alpha x_0 + sigma eps with x_0 from component k, N(mu_k, S_k), x is N(alpha mu_k, C_k) with
C_k = alpha^2 S_k + sigma^2 I, and

    E[eps | x] = sigma sum_k r_k C_k^-1 (x - alpha mu_k)
    E[x_0 | x] = sum_k r_k (mu_k + alpha S_k C_k^-1 (x - alpha mu_k)),    r_k the responsibilities.

A prompt that names components restricts the mixture to them; any other prompt means the whole mixture. Use it to test
techniques against theory, or to try a sweep in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsweep.core.problems import one_of, require, within
from diffsweep.core.process import Flow, named_table
from diffsweep.core.streams import like, placed
from diffsweep.core.types import EPSILON, FLOW, SAMPLE, VELOCITY, Estimate, Level, Process, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PROCESSES: dict[str, Process] = {"ddpm": named_table("squaredcos_cap_v2"), "flow": Flow()}
COLOURS = {"red": (0.6, -0.6, -0.6), "green": (-0.6, 0.6, -0.6), "blue": (-0.6, -0.6, 0.6)}


class GaussianMixture:
    """The exact model. means: K C H W; covariances: K D D with D = C H W; weights: K; names: one a component.

    kind: what it predicts, by default noise, or the velocity of a flow.
    """

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor,
        weights: Sequence[float],
        names: Sequence[str],
        process: Process = PROCESSES["ddpm"],
        device: str = "cpu",
        kind: str | None = None,
    ) -> None:
        import torch

        _, c, h, w = means.shape
        self.stage = Stage((c, h, w), process)
        self.kind = kind or (FLOW if isinstance(process, Flow) else EPSILON)
        self.names = list(names)
        self.means = means.flatten(1).double().to(device)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariances.double())
        self.eigenvalues, self.eigenvectors = eigenvalues.to(device), eigenvectors.to(device)
        self.log_weights = torch.tensor(weights, dtype=torch.float64, device=device).log()
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

    def predict(
        self, x: Tensor, levels: Sequence[Level], prompts: Sequence[str], beside: Mapping[str, Tensor]
    ) -> Estimate:
        import torch

        numbers = like(self.means, [(level.alpha, level.sigma) for level in levels])
        alpha, sigma = numbers[:, 0, None], numbers[:, 1, None]
        mask = placed(torch.tensor([self.chosen(p) for p in prompts]), str(x.device))
        apart = x.flatten(1).double()[:, None] - alpha[..., None] * self.means  # B K D
        turned = torch.einsum("bkd,kde->bke", apart, self.eigenvectors)
        spread = alpha[..., None] ** 2 * self.eigenvalues + sigma[..., None] ** 2
        log_r = self.log_weights - 0.5 * (turned.square() / spread + spread.log()).sum(-1)
        r = log_r.masked_fill(~mask, -torch.inf).softmax(-1)[..., None]
        noise = sigma * (r * torch.einsum("bke,kde->bkd", turned / spread, self.eigenvectors)).sum(1)
        if self.kind != EPSILON:
            shrunk = torch.einsum("bke,kde->bkd", self.eigenvalues * turned / spread, self.eigenvectors)
            clean = (r * (self.means + alpha[..., None] * shrunk)).sum(1)
            output = {SAMPLE: clean, VELOCITY: alpha * noise - sigma * clean, FLOW: noise - clean}[self.kind]
        else:
            output = noise
        return Estimate(output.float().reshape(x.shape), kind=self.kind)

    def finish(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Analytic:
    """Smooth fields around three colours. size: pixels a side; spread: standard deviation of a pixel; reach: the
    correlation length in pixels; process: how pictures are noised, by DDPM's table or by a rectified flow."""

    size: int = 8
    spread: float = 0.25
    reach: float = 3.0
    process: str = "ddpm"

    def __post_init__(self) -> None:
        require(
            within("size", self.size, 1, 32),
            within("spread", self.spread, 1e-3, 10),
            within("reach", self.reach, 1e-3),
            one_of("process", self.process, PROCESSES),
        )

    def stage(self) -> Stage:
        spacing, rule = ("trailing", "euler") if self.process == "flow" else ("leading", "ddpm")
        return Stage((3, self.size, self.size), PROCESSES[self.process], spacing=spacing, rule=rule)

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
        return GaussianMixture(means, covariances, weights, list(COLOURS), PROCESSES[self.process], device)
