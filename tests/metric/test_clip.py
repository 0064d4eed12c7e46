"""CLIP score against torchmetrics' own, and what the embedded CLIP makes of the drawn world."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diffsweep.core.problems import BadInput
from diffsweep.metric import Batch, choose, score
from diffsweep.metric.clip import Anagram, ClipScore
from diffsweep.model.clip import Clip
from diffsweep.store.cells import Store
from diffsweep.world import SCENES, STYLES, held_out, picture


def batch_of(*subjects: str, prompts: tuple[str, ...]) -> Batch:
    return Batch(np.stack([picture(s, "photo", 1).pixels for s in subjects]), prompts=prompts)


def test_it_is_torchmetrics_clip_score() -> None:
    """Its callable takes a model and a processor; today's transformers wrap the features, so they are unwrapped."""
    from torchmetrics.functional.multimodal import clip_score

    network = Clip().network()
    model = SimpleNamespace(
        get_image_features=lambda x: network.model.get_image_features(x).pooler_output,
        get_text_features=lambda ids, mask: network.model.get_text_features(ids, mask).pooler_output,
        config=network.model.config,
        to=lambda device: model,
        eval=lambda: model,
    )
    prompts = ("a photo of a dog", "a photo of a skull", "a sketch of a mushroom")
    batch = batch_of("dog", "dog", "owl", prompts=prompts)
    for ours, pixels, prompt in zip(ClipScore()(batch), batch.images, prompts, strict=True):
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        theirs = clip_score(image, prompt, model_name_or_path=lambda: (model, network.processor))
        assert ours.value == pytest.approx(theirs.item(), abs=2e-3)


def test_the_right_prompt_scores_higher() -> None:
    right = ClipScore()(batch_of("dog", "skull", prompts=("a photo of a dog", "a photo of a skull")))
    wrong = ClipScore()(batch_of("dog", "skull", prompts=("a photo of a skull", "a photo of a dog")))
    for own, other in zip(right, wrong, strict=True):
        assert own.value > other.value + 20  # type: ignore[operator]


@torch.inference_mode()
def test_it_names_nearly_all_held_out_scenes() -> None:
    pictures = [p for p in map(held_out, range(49 * len(STYLES))) if p.subject in SCENES]
    network = Clip().network()
    similar = (
        network.of_pictures(np.stack([p.pixels for p in pictures]))
        @ network.of_texts([f"a {name}" for name in SCENES]).T
    )
    named = [SCENES[i] for i in similar.argmax(1).tolist()]
    assert np.mean([name == p.subject for name, p in zip(named, pictures, strict=True)]) >= 0.97


def test_any_size_is_judged() -> None:
    large = Batch(picture("dog", "photo", 1, 64).pixels[None], prompts=("a photo of a dog",))
    (small,) = ClipScore()(batch_of("dog", prompts=("a photo of a dog",)))
    assert ClipScore()(large)[0].value == pytest.approx(small.value, abs=5)


def test_a_cells_prompt_is_its_own_and_of_several_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pixels = picture("dog", "photo", 1).pixels
    for cell_id, prompt in (
        ("a" * 20, "a photo of a dog"),
        ("b" * 20, ["a photo of a dog", "a skull"]),
        ("c" * 20, None),
    ):
        config: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
        store.save(cell_id, {"image": pixels}, {"config": config, "metrics": {}})
    assert score(store, ["a" * 20, "b" * 20, "c" * 20], choose(["clip_score"]).metrics) == 2
    one, first = (store.record(cell_id)["metrics"]["clip_score"] for cell_id in ("a" * 20, "b" * 20))
    assert one == first
    assert one["definition"]["weights"] == Clip().fingerprint()
    assert store.record("c" * 20)["metrics"] == {}


def test_what_is_no_clip_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="path=nowhere: no such folder"):
        Clip("nowhere").fingerprint()
    with pytest.raises(BadInput, match=r"no \.safetensors file in it"):
        Clip(str(tmp_path)).fingerprint()


# -- bands and views, by hand from the network's embeddings ------------------------------------------------------------
def cosine(pixels: np.ndarray, prompt: str) -> float:
    network = Clip().network()
    return float((network.of_pictures(pixels[None]) @ network.of_texts([prompt]).T).item())


DOG, SKULL = (picture(scene, "photo", 1).pixels for scene in ("dog", "skull"))
PROMPTS = ("a photo of a dog", "a photo of a skull", "a sketch of an owl")


def test_a_band_is_judged_alone_against_its_own_prompt() -> None:
    low = (DOG // 4 * 3).astype(np.uint8)
    batch = Batch(DOG[None], prompts=PROMPTS[:1], all_prompts=(PROMPTS,), lows=low[None])
    high = np.clip(DOG.astype(int) - low + 128, 0, 255).astype(np.uint8)
    assert ClipScore("low")(batch)[0].value == pytest.approx(max(0, 100 * cosine(low, PROMPTS[0])), abs=1e-3)
    assert ClipScore("high")(batch)[0].value == pytest.approx(max(0, 100 * cosine(high, PROMPTS[2])), abs=1e-3)


def test_alignment_is_the_worst_views_cosine_and_concealment_how_surely_views_are_told_apart() -> None:
    views = np.stack([[DOG, SKULL, DOG[::-1]], [SKULL, DOG, DOG[::-1]]])  # the second: two views the wrong way round
    batch = Batch(views[:, 0].copy(), prompts=(PROMPTS[0],) * 2, all_prompts=(PROMPTS,) * 2, views=views)
    temperature = float(np.exp(-Clip().network().model.logit_scale.item()))
    for k, seen in enumerate(views):
        cosines = np.array([[cosine(view, prompt) for prompt in PROMPTS] for view in seen])
        likely = np.exp(cosines / temperature)
        told = np.trace(likely / likely.sum(0)) / 3, np.trace(likely / likely.sum(1, keepdims=True)) / 3
        assert Anagram()(batch)[k].value == pytest.approx(cosines.diagonal().min(), abs=1e-5)
        assert Anagram("concealment")(batch)[k].value == pytest.approx(np.mean(told), abs=1e-4)
    right, wrong = (score.value for score in Anagram("concealment")(batch))
    assert right > 0.5 > wrong  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("technique", "names"), [("anagram", ["clip_alignment", "clip_concealment"]), ("hybrid", ["clip_low", "clip_high"])]
)
def test_a_cell_stores_what_its_metrics_need(
    technique: str, names: list[str], config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from diffsweep.runner.run import run_sweep

    kept = {"metric__names": [*names, "clip_score"], "output_dir": str(tmp_path), "scheduler__steps": 3}
    outcome = run_sweep([(config(technique=technique, model__size=32, **kept), {})], "judged")
    (cell,) = json.loads((outcome.folder / "sweep.json").read_bytes())["cells"]
    record = Store(tmp_path).record(cell["cell_id"])
    assert list(record["metrics"]) == sorted([*names, "clip_score"])
    if technique == "anagram":
        seen = [Store(tmp_path).pixels(cell["cell_id"], f"view_{k}") for k in (0, 1)]
        expected = min(map(cosine, seen, record["config"]["prompt"]))
        assert record["metrics"]["clip_alignment"]["value"] == pytest.approx(expected, abs=1e-5)


# -- what is no CLIP, or not a whole one -------------------------------------------------------------------------------
def test_a_prompt_that_is_too_long_is_cut() -> None:
    long = "a photo of a dog " + "and a skull and an owl and a campfire " * 20
    (score,) = ClipScore()(Batch(DOG[None], prompts=(long,)))
    assert score.value is not None and score.value > 0


def copied(folder: Path) -> Path:
    folder.mkdir()
    for file in Clip().source.root.iterdir():
        if file.name != "SHA256SUMS":
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_another_kind_of_model_is_told(tmp_path: Path) -> None:
    folder = copied(tmp_path / "siglip")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(BadInput, match=r"not a CLIP; its config\.json tells model_type siglip"):
        Clip(str(folder)).fingerprint()


def test_weights_that_lack_tensors_are_never_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(tmp_path / "half")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("vision_model")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"of its tensors are missing or of another shape, vision_model\."):
        Clip(str(folder)).network()


def test_weights_of_other_tools_beside_it_do_not_count(tmp_path: Path) -> None:
    folder = copied(tmp_path / "both")
    before = Clip(str(folder)).fingerprint()
    (folder / "open_clip_model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert Clip(str(folder)).fingerprint() == before
