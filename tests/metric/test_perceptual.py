"""LPIPS, DISTS and MS-SSIM against their authors' own package or their formulas, on the same random weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffsweep.core.problems import BadInput
from diffsweep.metric import Batch, Options, choose, known
from diffsweep.metric.backbone import ALEXNET, INCEPTION, SQUEEZENET, VGG16

RNG = np.random.default_rng(4)


def pictures(side: int, number: int = 3) -> Batch:
    references = gaussian_filter(RNG.uniform(0, 255, (number, side, side, 3)), (0, 2, 2, 0)) * 3 - 255
    noise = RNG.normal(size=references.shape) * np.array([4, 15, 60])[:number, None, None, None]
    return Batch(*(x.clip(0, 255).round().astype(np.uint8) for x in (references + noise, references)))


def tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """In [0, 1]."""
    assert batch.references is not None
    x, y = (torch.from_numpy(p).permute(0, 3, 1, 2).float() / 255 for p in (batch.images, batch.references))
    return x, y


def values(name: str, batch: Batch) -> list[Any]:
    return [score.value for score in known()[name](batch)]


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated")  # lpips's call of torchvision
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum")
def test_lpips_is_its_authors_package(net: str, backbones: None) -> None:
    import lpips

    batch = pictures(64)
    theirs = lpips.LPIPS(net=net, verbose=False)
    with torch.inference_mode():
        expected = theirs(*(2 * x - 1 for x in tensors(batch))).flatten().tolist()
    assert values(f"lpips_{net}", batch) == pytest.approx(expected, abs=2e-6, rel=1e-4)
    assert len(set(expected)) == 3


def test_dists_is_its_formula_in_numpy(backbones: None, torch_home: Path) -> None:
    """Ding et al. (3) to (6): means compare texture, covariances structure, at the picture and five depths of VGG with
    L2 pooling instead of the maximum."""
    import torchmetrics
    import torchvision

    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "dists_models"
    weights = torch.load(folder / "weights.pt")
    network = torchvision.models.vgg16(weights="DEFAULT").features.eval()
    window = np.hanning(5)[1:-1]
    kernel = torch.from_numpy(np.outer(window, window) / np.outer(window, window).sum()).float()

    def seen(x: torch.Tensor) -> list[np.ndarray]:
        found = [x]
        h = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
            :, None, None
        ]
        for i, layer in enumerate(network):
            if isinstance(layer, torch.nn.MaxPool2d):
                c = h.shape[1]
                filters = kernel.expand(c, 1, 3, 3)
                h = (torch.nn.functional.conv2d(h**2, filters, stride=2, padding=1, groups=c) + 1e-12).sqrt()
            else:
                h = layer(h)
            if i in (3, 8, 15, 22, 29):
                found.append(h)
        return [f.double().numpy() for f in found]

    batch = pictures(64)
    with torch.inference_mode():
        pairs = list(zip(*map(seen, tensors(batch)), strict=True))
    alpha, beta = (weights[name].double().flatten().numpy() for name in ("alpha", "beta"))
    total = alpha.sum() + beta.sum()
    similar, start = np.zeros(3), 0
    for f, g in pairs:
        part = slice(start, start := start + f.shape[1])
        mf, mg = f.mean((2, 3)), g.mean((2, 3))
        covariance = ((f - mf[..., None, None]) * (g - mg[..., None, None])).mean((2, 3))
        texture = (2 * mf * mg + 1e-6) / (mf**2 + mg**2 + 1e-6)
        structure = (2 * covariance + 1e-6) / (f.var((2, 3)) + g.var((2, 3)) + 1e-6)
        similar += (texture * alpha[part] + structure * beta[part]).sum(1) / total
    assert values("dists", batch) == pytest.approx(list(1 - similar), abs=2e-4)
    assert start == len(alpha) == len(beta)


def test_ms_ssim_is_its_formula_in_numpy() -> None:
    """Wang et al. 2003 (7): contrast and structure at five scales, halved by the mean of 2 x 2; luminance last."""
    batch = pictures(176, 2)
    assert batch.references is not None
    betas = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = []
    for image, reference in zip(batch.images.astype(float), batch.references.astype(float), strict=True):
        x, y, product = image, reference, 1.0

        def mean(z: np.ndarray) -> np.ndarray:
            return gaussian_filter(z, 1.5, radius=5, mode="mirror", axes=(0, 1))

        for scale, beta in enumerate(betas):
            mx, my = mean(x), mean(y)
            vx, vy, c = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
            similarity = (2 * c + c2) / (vx + vy + c2)
            if scale == 4:
                similarity = similarity * (2 * mx * my + c1) / (mx**2 + my**2 + c1)
            product *= max(similarity.mean(), 0) ** beta
            h, w = x.shape[0] // 2, x.shape[1] // 2
            x, y = (z[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3)) for z in (x, y))
        expected.append(product)
    assert values("ms_ssim", batch) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", ["lpips_alex", "dists", "ms_ssim"])
def test_pictures_too_small_have_no_number_and_say_why(name: str, backbones: None) -> None:
    scores = known()[name](pictures(31))
    assert all(score.value is None and "pixels are needed" in str(score.reason) for score in scores)


@pytest.mark.parametrize("name", ["lpips_vgg", "dists"])
def test_equal_pictures_are_0_apart_and_more_noise_is_farther(name: str, backbones: None) -> None:
    batch = pictures(48)
    ordered = values(name, batch)
    assert ordered == sorted(ordered) and len(set(ordered)) == 3
    assert values(name, Batch(batch.images, batch.images)) == pytest.approx([0, 0, 0], abs=1e-5)


def test_a_pictures_bits_owe_nothing_to_its_neighbours(backbones: None) -> None:
    batch = pictures(40)
    assert batch.references is not None
    alone = [values("lpips_alex", Batch(batch.images[k : k + 1], batch.references[k : k + 1]))[0] for k in range(3)]
    assert values("lpips_alex", batch) == alone


# -- what is missing ---------------------------------------------------------------------------------------------------
def test_the_files_are_those_that_torchvision_looks_for(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.hub
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    models = torchvision.models
    for backbone, weights in (
        (ALEXNET, models.AlexNet_Weights),
        (VGG16, models.VGG16_Weights),
        (SQUEEZENET, models.SqueezeNet1_1_Weights),
    ):
        assert str(backbone.path) == f"{torch.hub.get_dir()}/checkpoints/{weights.DEFAULT.url.rpartition('/')[2]}"
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(ALEXNET.path.parents[1]) == torch.hub.get_dir()


def test_weights_that_are_missing_are_told_with_what_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BadInput) as refused:
        choose(["psnr", "lpips_alex", "dists"])
    first, second = refused.value.messages
    assert first.startswith("metric lpips_alex: the weights of alexnet are not at ") and "skip goes on" in first
    assert second.startswith("metric dists: the weights of vgg16 are not at ")
    (command,) = re.findall(r"`python -c '(.*)'`", first)
    import torchvision

    fetched: list[Any] = []
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: fetched.append(weights))
    exec(command)
    assert fetched == ["DEFAULT"]


def test_what_is_missing_is_skipped_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    chosen = choose(["psnr", "lpips_alex", "clip_score"], Options(missing="skip", judge=str(tmp_path / "nowhere")))
    assert chosen.names == ["psnr"]
    assert list(chosen.unavailable) == ["lpips_alex", "clip_score"]
    assert chosen.unavailable["clip_score"].startswith(f"metric.judge={tmp_path}/nowhere: no such folder")


def test_inception_needs_its_package_then_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsweep.metric import backbone

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    present: Callable[[str], object] = {"torch_fidelity": object()}.get
    monkeypatch.setattr(backbone, "find_spec", lambda name: None)
    assert INCEPTION.missing() == ("the package torch-fidelity is not installed; run `pip install torch-fidelity`")
    monkeypatch.setattr(backbone, "find_spec", present)
    assert str(INCEPTION.missing()).startswith("the weights of inception-v3-compat are not at ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "ignore"}, "metric.missing=ignore: must be one of refuse, skip"),
        ({"features": "clipp"}, "metric.features=clipp: must be one of clip, inception; did you mean 'clip'?"),
    ],
)
def test_options_are_checked(options: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        Options(**options)  # type: ignore[arg-type]
    assert refused.value.messages == [message]


def test_damaged_weights_are_told_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ALEXNET.path.parent.mkdir(parents=True)
    ALEXNET.path.write_bytes(b"cut short")
    assert "are damaged: remove the file; `python -c" in str(ALEXNET.missing())
