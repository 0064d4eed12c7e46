"""The embedded model's figures: what they are worked out from, and the page they make."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsweep.world import SUBJECTS, held_out

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("measure_tiny")


def test_psnr_is_each_pictures_own(script: Any) -> None:
    """Differences of 5 and 51: 34.1514 and 13.9794 dB, not the PSNR of their mean error."""
    clean = np.full((2, 4, 4, 3), 100, np.uint8)
    other = clean + np.array([5, 51], np.uint8)[:, None, None, None]
    assert script.psnr(other, clean) == pytest.approx((34.151404 + 13.9794) / 2, abs=1e-4)


def test_sharpness_halves_with_the_contrast(script: Any) -> None:
    clean = np.zeros((1, 4, 4, 3), np.uint8)
    clean[:, ::2] = 200
    assert script.sharpness(clean // 2, clean) == pytest.approx(0.5)
    assert script.sharpness(clean, clean) == 1


def test_clip_names_held_out_pictures(script: Any) -> None:
    pictures = [held_out(i) for i in range(0, 147, 7)]
    names = script.clip_names(np.stack([p.pixels for p in pictures]))
    assert script.share(names, [p.subject for p in pictures]) > 0.85
    assert script.share(np.zeros(2, int), [SUBJECTS[0], SUBJECTS[1]]) == 0.5


def test_45_pairs_of_ten_scenes(script: Any) -> None:
    assert len(script._pairs()) == 45
    assert set(script.PAIRED) <= set(SUBJECTS)


def test_the_page_shows_what_is_measured(script: Any) -> None:
    figures = {
        "settings": {"date": "2026-01-02", "commit": "abc", "words": "UNet in float32"},
        "clip": {"n": 3, "zero-shot": 0.98},
        "restoration": {"n": 2, "250": {"one_step_denoise": {"PSNR": 30.0, "sharp": 1.0}}},
        "generated": {"n": 4, "CLIP": 0.9, "photo": {"CLIP": 0.91, "judge": 0.87}},
    }
    text = script.page(figures, "picture.png")
    for line in ("* zero-shot: 0.980", "t = 250", "| one_step_denoise | 30.000 | 1.000 |", "| photo | 0.910 | 0.870 |"):
        assert line in text
    assert "2026-01-02" in text and "hybrids" not in text.lower()


def test_a_card_keeps_what_is_above_its_figures(script: Any, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# A part\n\nAbout it.\n\n## Figures\n\nNot measured yet.\n")
    settings = {"date": "2026-01-02", "commit": "abc", "words": "UNet in float32"}
    for accuracy in (0.5, 0.75):
        script.carded({"settings": settings, "clip": {"zero-shot": accuracy}}, "clip", tmp_path)
    text = card.read_text()
    assert text.startswith("# A part\n\nAbout it.\n\n## Figures\n\n### CLIP\n")
    assert text.count("zero-shot:") == 1 and "* zero-shot: 0.750" in text and "Not measured" not in text


@pytest.mark.parametrize("part", ["stage1", "stage2", "clip"])
def test_the_shipped_cards_hold_their_figures(script: Any, part: str) -> None:
    text = (script.PLACES[part] / "README.md").read_text()
    for name in script.MEASURED[part]:
        assert f"### {'CLIP' if name == 'clip' else name.capitalize()}" in text


def test_a_hybrids_high_band_is_around_grey(script: Any) -> None:
    class Pictures:
        def pixels(self, ids: list[str], name: str = "image") -> np.ndarray:
            return np.full((1, 2, 2, 3), {"image": 250, "low": 240}[name], np.uint8)

    assert (script.high_band(Pictures(), ["a"]) == 138).all()


def test_the_figure_is_drawn(script: Any, tmp_path: Path) -> None:
    values = {"CLIP": 0.9, "judge": 0.8, "diversity, CLIP": 0.1}
    script.drawn({"n": 3, "1.0": values, "4.0": values}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_the_second_judge_sees_a_larger_picture_at_its_own_size(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its pixels is the mean of the picture's pixels there."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(script, "_judge", lambda: lambda pixels: seen.append(pixels) or torch.zeros(len(pixels), 49))
    small = np.random.default_rng(0).integers(10, 240, (2, 32, 32, 3), dtype=np.uint8)
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    large[:, ::2] += 5
    large[:, 1::2] -= 5
    script.second_judge(small)
    script.second_judge(large)
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("model, part", [("tiny", "autoencoder"), ("tiny_sd", "anagrams"), ("tiny_flow", "upscale")])
def test_a_part_that_a_model_does_not_have_is_told(script: Any, model: str, part: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        script.main(["--model", model, part])
    assert f"no part {part}: there are " in capsys.readouterr().err


def test_an_unknown_part_is_told(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["clipp"])
    assert "no part clipp: there are clip, " in capsys.readouterr().err
