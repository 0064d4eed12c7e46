"""Every family against its own pipeline of diffusers: same weights, seed and settings, the same picture.

The promise is that of `technique/test_as_diffusers.py`: at most 1 level of 255, in at most 2 % of the channel values.
Cells of other seeds, prompts, scales and numbers of steps share calls here; the pipelines draw one at a time.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from diffsweep.constraint.keep import keep
from diffsweep.core.problems import BadInput
from diffsweep.model.hub import from_cache_alone
from diffsweep.model.source import Source
from diffsweep.paths import shipped
from diffsweep.runner.cell import Cell
from diffsweep.runner.freeze import freeze
from diffsweep.runner.ingredients import to_pixels
from diffsweep.technique import inpaint

Ours = Callable[..., list[tuple[Cell, np.ndarray]]]
THREE = (
    {"seed": 0, "prompt": "a dog", "guidance__scale": 5.0, "scheduler__steps": 4},
    {"seed": 1, "prompt": "an old man, smiling", "guidance__scale": 1.0, "scheduler__steps": 3},
    {"seed": 2, "prompt": "a cat", "guidance__scale": 2.5, "scheduler__steps": 6, "guidance__negative_prompt": "a dog"},
)
# diffusers' DDIM takes T // n for every step (its issue 12633): trailing timesteps have that only where n divides T
DIVIDING = tuple({**one, "scheduler__steps": n} for one, n in zip(THREE, (4, 5, 8), strict=True))


@pytest.fixture
def ours(config: Callable[..., dict[str, Any]], sampled: Any) -> Ours:
    """Cells and their pictures, all from one engine whose calls have four rows."""

    def drawn(folder: Path, *changes: dict[str, Any], **common: Any) -> list[tuple[Cell, np.ndarray]]:
        usual = {"model": "tiny_sd", "model__path": str(folder), "scheduler": "auto"}
        cells = [freeze(config(**{**usual, **common, **change}), {}) for change in changes]
        ended = sampled(cells, cells[0].model.load("cpu"), 4)
        return [(cell, to_pixels(end.result.image)) for cell, end in zip(cells, ended, strict=True)]

    return drawn


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    apart = np.abs(ours.astype(int) - theirs.astype(int))
    assert ours.shape == theirs.shape
    assert apart.max() <= 1 and (apart > 0).mean() <= 0.02, (apart.max(), (apart > 0).mean())


def theirs(
    kind: str,
    folder: Path,
    cell: Cell,
    scheduler: str | None = None,
    changed: dict[str, Any] | None = None,
    **settings: Any,
) -> np.ndarray:
    """The picture that a pipeline of diffusers draws for a cell. changed: its scheduler's configuration."""
    index = json.loads((folder / "model_index.json").read_text())
    absent = {part: None for part, found in index.items() if found == [None, None]}
    pipeline: Any = getattr(diffusers, kind).from_pretrained(folder, **absent)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler:
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    if changed:
        pipeline.scheduler = pipeline.scheduler.from_config(changed)
    told = {"prompt": cell.prompt, "num_inference_steps": len(cell.levels), "guidance_scale": cell.guidance.scale}
    if cell.guidance.negative_prompt:
        told["negative_prompt"] = cell.guidance.negative_prompt
    if kind.startswith("FluxI") or kind == "FluxPipeline":
        told |= {"guidance_scale": cell.guidance.embedded, "true_cfg_scale": cell.guidance.scale}
        told |= {"height": cell.stage.size[0], "width": cell.stage.size[1]}
        told["negative_prompt"] = cell.guidance.negative_prompt or ""
    if kind.startswith("ZImage"):
        told["guidance_scale"] -= 1
    if kind.startswith("QwenImage"):
        told |= {"guidance_scale": None, "true_cfg_scale": cell.guidance.scale}
        told["negative_prompt"] = cell.guidance.negative_prompt
    drawn = pipeline(**{**told, "generator": torch.Generator().manual_seed(cell.seed), "output_type": "np", **settings})
    return (drawn.images[0] * 255).round().astype(np.uint8)


# -- from noise --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "scheduler, changes, klass",
    [
        ("ddim", {}, "DDIMScheduler"),
        ("ddim", {"scheduler__spacing": "trailing"}, "DDIMScheduler"),
        ("ddim", {"scheduler__eta": 1.0}, "DDIMScheduler"),
        ("euler", {}, "EulerDiscreteScheduler"),
        ("euler", {"scheduler__spacing": "trailing"}, "EulerDiscreteScheduler"),
        ("euler_ancestral", {}, "EulerAncestralDiscreteScheduler"),
    ],
)
def test_stable_diffusion_draws_what_its_pipeline_draws(
    folders: Any, ours: Ours, scheduler: str, changes: dict[str, Any], klass: str
) -> None:
    folder = folders("sd", timestep_spacing=changes.get("scheduler__spacing", "leading"))
    for cell, picture in ours(folder, *DIVIDING, **{"scheduler": scheduler, **changes}):
        eta = {"eta": changes["scheduler__eta"]} if "scheduler__eta" in changes else {}
        assert_same(picture, theirs("StableDiffusionPipeline", folder, cell, klass, **eta))


@pytest.mark.parametrize("schedule", [{"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True}])
def test_velocities_are_told_by_the_scheduler_and_so_is_a_start_without_signal(
    folders: Any, ours: Ours, schedule: dict[str, Any]
) -> None:
    settings = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", **schedule}
    folder = folders("sd", **settings)
    for cell, picture in ours(folder, *DIVIDING):
        assert_same(picture, theirs("StableDiffusionPipeline", folder, cell))


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_draws_what_its_pipeline_draws_with_its_own_idea_of_no_prompt(
    folders: Any, ours: Ours, zeros: bool
) -> None:
    folder = folders("sdxl", force_zeros_for_empty_prompt=zeros)
    empty = {**THREE[0], "guidance__negative_prompt": ""}
    drawn = ours(folder, *THREE, empty)
    for cell, picture in drawn:
        told = {"negative_prompt": ""} if cell.guidance.negative_prompt == "" else {}
        assert_same(picture, theirs("StableDiffusionXLPipeline", folder, cell, **told))
    assert np.array_equal(drawn[0][1], drawn[-1][1]) != zeros
    assert (drawn[0][0].id == drawn[-1][0].id) != zeros


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flow"])
def test_the_embedded_models_draw_what_their_pipelines_draw(ours: Ours, name: str) -> None:
    kind = {"tiny_sd": "StableDiffusionPipeline", "tiny_flow": "StableDiffusion3Pipeline"}[name]
    folder = Source(name).root
    assert getattr(diffusers, kind).from_pretrained(folder)  # as they are, told nothing
    for cell, picture in ours(folder, *DIVIDING[:2]):
        assert_same(picture, theirs(kind, folder, cell))


# -- pixels, and labels in the place of text ---------------------------------------------------------------------------
STEPS = tuple({"seed": seed, "scheduler__steps": n, "prompt": "auto"} for seed, n in enumerate((4, 7, 20)))
ADM = {"num_class_embeds": 3, "out_channels": 6, "resnet_time_scale_shift": "scale_shift"}


def drawn_by_steps(folder: Path, cell: Cell, label: int) -> np.ndarray:
    """The picture of a network that is told a label, by diffusers' DDPM scheduler: its pipeline tells none."""
    pipeline: Any = diffusers.DDPMPipeline.from_pretrained(folder)
    generator, scheduler = torch.Generator().manual_seed(cell.seed), pipeline.scheduler
    x = torch.randn(1, *cell.stage.shape, generator=generator)
    scheduler.set_timesteps(len(cell.levels))
    with torch.no_grad():
        for t in scheduler.timesteps:
            answer = pipeline.unet(x, t, class_labels=torch.tensor([label])).sample
            x = scheduler.step(answer, t, x, generator=generator).prev_sample
    return to_pixels(x[0])


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("scheduler, kind", [("ddpm", "DDPMPipeline"), ("ddim", "DDIMPipeline")])
def test_pixels_are_what_their_pipelines_draw_at_a_row_a_step(
    folders: Any, ours: Ours, variance: str, scheduler: str, kind: str
) -> None:
    """DDIMPipeline alone can be told to compute noise anew from the clipped estimate, which it does not unasked."""
    folder = folders("ddpm", variance_type=variance)
    anew = {"use_clipped_model_output": True} if scheduler == "ddim" else {}
    for cell, picture in ours(folder, *STEPS, scheduler=scheduler):
        assert_same(picture, unasked(kind, folder, cell, **anew))
        assert not anew or np.abs(unasked(kind, folder, cell).astype(int) - picture).max() > 1
        assert (cell.prompts, cell.notes) == (("",), ())


def unasked(kind: str, folder: Path, cell: Cell, **settings: Any) -> np.ndarray:
    """The picture that a pipeline draws without a prompt."""
    pipeline: Any = getattr(diffusers, kind).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    told = {"generator": torch.Generator().manual_seed(cell.seed), "num_inference_steps": len(cell.levels)}
    return (pipeline(**told, **settings, output_type="np").images[0] * 255).round().astype(np.uint8)


def test_the_variance_that_a_checkpoint_names_makes_another_picture(folders: Any, ours: Ours) -> None:
    small, large = (
        ours(folders("ddpm", variance_type=kind), STEPS[0], scheduler="ddpm")[0][1]
        for kind in ("fixed_small", "fixed_large")
    )
    assert not np.array_equal(small, large)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_repository_of_old_with_all_at_the_root_draws_the_same(
    folders: Any, ours: Ours, tmp_path: Path, indexed: bool
) -> None:
    folder = folders("ddpm", num_train_timesteps=400, beta_end=0.05)
    old = tmp_path / "old"
    old.mkdir()
    for file in (*folder.glob("unet/*"), *([folder / "model_index.json"] if indexed else [])):
        shutil.copy(file, old)
    (weights,) = old.glob("*.safetensors")
    named = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # of attention's layers, then

    def renamed(key: str) -> str:
        layer, _, kind = key.rpartition(".")
        return next(
            (f"{layer.removesuffix(new)}{was}.{kind}" for new, was in named.items() if layer.endswith(new)), key
        )

    save_file({renamed(key): tensor for key, tensor in load_file(weights).items()}, weights)
    written = {"_class_name": "GaussianDDPMScheduler", "timesteps": 400, "beta_start": 1e-4, "beta_end": 0.05}
    (old / "scheduler_config.json").write_text(json.dumps(written))
    ((_, new),) = ours(folder, STEPS[1])
    ((_, same),) = ours(old, STEPS[1])
    assert np.array_equal(new, same)


def test_labels_are_told_by_number_or_name_and_a_learned_variance_is_used(
    folders: Any, ours: Ours, tmp_path: Path
) -> None:
    folder = tmp_path / "named"
    shutil.copytree(folders("ddpm", network=ADM, variance_type="learned_range"), folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {"0": "tench, Tinca tinca", "1": "goldfish", "2": "crane"}
    (folder / "model_index.json").write_text(json.dumps(index))
    prompts = ["auto", "1", "Tinca tinca", "crane"]
    cells = [{**STEPS[1], "prompt": prompt} for prompt in prompts]
    drawn = ours(folder, *cells)
    for (cell, picture), label in zip(drawn, (0, 1, 0, 2), strict=True):
        assert_same(picture, drawn_by_steps(folder, cell, label))
    assert [cell.prompt for cell, _ in drawn] == ["tench", "goldfish", "tench", "crane"]
    assert drawn[0][0].id == drawn[2][0].id
    assert drawn[0][0].notes == ("prompt: none is given, text_to_image draws 'tench'",)


def test_dit_draws_what_its_pipeline_draws_with_the_null_class_against_the_label(folders: Any, ours: Ours) -> None:
    folder = folders("dit")
    labels = {"2": 2, "White shark": 4, "tench": 0}
    cells = [
        {**cell, "prompt": name, "guidance__negative_prompt": None} for cell, name in zip(THREE, labels, strict=True)
    ]
    for (cell, picture), number in zip(ours(folder, *cells), labels.values(), strict=True):
        told = {"class_labels": [number], "guidance_scale": cell.guidance.scale}
        assert_same(picture, unasked("DiTPipeline", folder, cell, **told))


# -- text under a mask -------------------------------------------------------------------------------------------------
UNBINNED = {"use_resolution_binning": False}


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_pixart_sigma_draws_what_its_pipeline_draws_with_its_own_spacing(
    folders: Any, ours: Ours, spacing: str
) -> None:
    folder = folders("pixart", timestep_spacing=spacing)
    for cell, picture in ours(folder, *DIVIDING):
        assert_same(picture, theirs("PixArtSigmaPipeline", folder, cell, **UNBINNED))


def test_pixart_alpha_is_told_the_pictures_size_where_it_was_trained_so(folders: Any, ours: Ours) -> None:
    folder = folders("pixart_alpha", network={"sample_size": 128})
    size = {"height": 64, "width": 32}
    for cell, picture in ours(folder, *THREE, model__height=64, model__width=32):
        assert_same(picture, theirs("PixArtAlphaPipeline", folder, cell, **UNBINNED, **size))


def test_a_prompt_is_cut_where_pixart_is_told_to(folders: Any, ours: Ours) -> None:
    folder = folders("pixart")
    for cell, picture in ours(folder, THREE[1], model__text__max_length=5):
        cut = theirs("PixArtSigmaPipeline", folder, cell, **UNBINNED, max_sequence_length=5)
        assert_same(picture, cut)
        assert np.abs(cut.astype(int) - theirs("PixArtSigmaPipeline", folder, cell, **UNBINNED)).max() > 1


def test_sana_draws_what_its_pipeline_draws_and_instructs_positive_prompts_alone(folders: Any, ours: Ours) -> None:
    folder = folders("sana")
    told = {"height": 32, "width": 32, **UNBINNED}
    for cell, picture in ours(folder, *THREE):
        own = theirs("SanaPipeline", folder, cell, **told)
        assert_same(picture, own)
        bare = theirs("SanaPipeline", folder, cell, **told, complex_human_instruction=None)
        assert np.abs(own.astype(int) - bare).max() > 1


def test_sana_is_guided_even_where_a_prompt_is_its_own_negative(folders: Any, ours: Ours) -> None:
    same = {**THREE[0], "guidance__negative_prompt": "a dog"}
    ((cell, picture),) = ours(folders("sana"), same)
    told = {"height": 32, "width": 32, **UNBINNED}
    assert len(cell.prompts) == 2
    assert_same(picture, theirs("SanaPipeline", folders("sana"), cell, **told))


def test_sanas_autoencoder_draws_nothing(folders: Any, ours: Ours) -> None:
    """The first draw is the noise."""
    noised = {"technique": "forward_noise", "technique__t": 300, "input": "drawing", "seed": 3}
    ((cell, picture),) = ours(folders("sana"), noised)
    vae: Any = diffusers.AutoencoderDC.from_pretrained(folders("sana") / "vae")
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        pixels = torch.tensor(cell.pixels).permute(2, 0, 1)[None] / 127.5 - 1
        clean = vae.encode(pixels).latent * vae.config.scaling_factor
        (decoded,) = vae.decode((0.7 * clean + 0.3 * noise) / vae.config.scaling_factor).sample
    assert_same(picture, to_pixels(decoded))


# -- rows of a call ----------------------------------------------------------------------------------------------------
MIXED = {
    "sd": THREE,
    "dit": [{**cell, "prompt": n, "guidance__negative_prompt": "4"} for cell, n in zip(THREE, "024", strict=True)],
}


class Swapped:
    """A model that mistakes two rows for each other. what: `prompts` or `levels`."""

    def __init__(self, model: Any, what: str) -> None:
        self.model, self.what = model, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, x: torch.Tensor, levels: list[Any], prompts: list[Any], beside: Any) -> Any:
        told = {"levels": [*levels], "prompts": [*prompts]}
        own = told[self.what]
        own[0], own[-1] = own[-1], own[0]
        return self.model.predict(x, **told, beside=beside)


@pytest.mark.parametrize("name", ["sd", "sdxl", "ddpm", "dit", "pixart", "pixart_alpha", "sana"])
def test_cells_that_share_calls_have_the_bits_that_each_has_alone(
    folders: Any, config: Any, sampled: Any, name: str
) -> None:
    changes = STEPS if name == "ddpm" else MIXED.get(name, THREE)
    usual = {"model": "tiny_sd", "model__path": str(folders(name)), "scheduler": "ddim"}
    cells = [freeze(config(**usual, **change), {}) for change in changes]
    model = cells[0].model.load("cpu")

    def drawn(cells: list[Cell], model: Any = model) -> list[torch.Tensor]:
        return [end.result.image for end in sampled(cells, model, 4)]

    together = drawn(cells)
    alone = [drawn([cell])[0] for cell in cells]
    assert all(torch.equal(own, other) for own, other in zip(together, alone, strict=True))
    for what in ("levels", *([] if name == "ddpm" else ["prompts"])):
        assert not all(map(torch.equal, drawn(cells, Swapped(model, what)), alone))
    if name != "ddpm":
        exchanged = [replace(cells[0], guidance=cells[2].guidance), cells[1], cells[2]]
        assert not torch.equal(drawn(exchanged)[0], alone[0])


# -- from a picture ----------------------------------------------------------------------------------------------------
SMALL = {"model__height": 32, "model__width": 32}  # FLUX's networks do not say a size
IMG2IMG = {"technique": "image_to_image", "technique__strength": 0.6, "input": "drawing"}


@pytest.mark.parametrize("scheduler, klass", [("ddim", "DDIMScheduler"), ("euler", "EulerDiscreteScheduler")])
def test_image_to_image_is_the_pipelines_draws_and_all(folders: Any, ours: Ours, scheduler: str, klass: str) -> None:
    folder = folders("sd")
    for cell, picture in ours(folder, *THREE, **{**IMG2IMG, "scheduler": scheduler}):
        told = {"image": Image.fromarray(cell.pixels), "strength": 0.6}
        assert_same(picture, theirs("StableDiffusionImg2ImgPipeline", folder, cell, klass, **told))


def test_sdxls_image_to_image_is_the_pipelines(folders: Any, ours: Ours) -> None:
    folder = folders("sdxl")
    for cell, picture in ours(folder, *THREE, **IMG2IMG):
        told = {"image": Image.fromarray(cell.pixels), "strength": 0.6}
        assert_same(picture, theirs("StableDiffusionXLImg2ImgPipeline", folder, cell, **told))


INPAINT = {"technique": "inpaint", "technique__known": "held", "input": "drawing", "mask": "box"}


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize(
    "name, kind, scheduler, settings",
    [
        ("sd", "StableDiffusionInpaintPipeline", "EulerDiscreteScheduler", {}),
        ("sdxl", "StableDiffusionXLInpaintPipeline", "EulerDiscreteScheduler", {}),
        ("sd3", "StableDiffusion3InpaintPipeline", None, {"moved": 0.0}),  # which it forgets when it decodes
        ("flux", "FluxInpaintPipeline", None, {}),
        ("z_image", "ZImageInpaintPipeline", None, {}),
        ("qwen_image", "QwenImageInpaintPipeline", None, {}),
    ],
)
def test_inpainting_with_the_starts_noise_is_the_pipelines(
    folders: Any, ours: Ours, name: str, kind: str, scheduler: str | None, settings: dict[str, Any], strength: float
) -> None:
    folder = folders(name, **settings)
    start = {"technique__start": "noise" if strength == 1 else "input", "technique__strength": strength}
    for cell, picture in ours(folder, *THREE, **{**INPAINT, **SMALL, **start, "scheduler": "euler"}):
        pictures = {"image": Image.fromarray(cell.pixels), "mask_image": Image.fromarray(cell.mask)}
        sizes = {"height": 32, "width": 32, "strength": strength}
        assert_same(picture, theirs(kind, folder, cell, scheduler, **pictures, **sizes))


@pytest.mark.parametrize("technique", [INPAINT, IMG2IMG])
def test_flux2_klein_begins_from_a_picture_as_its_pipeline_does_that_sees_it_too(
    folders: Any, ours: Ours, monkeypatch: pytest.MonkeyPatch, technique: dict[str, Any]
) -> None:
    """There is a pipeline of inpainting alone, which tells the network the clean picture beside x; here nothing is told
    beside. With a mask of all pixels it would be image_to_image."""
    kind, folder = "Flux2KleinInpaintPipeline", folders("klein")
    plain = [{key: value for key, value in one.items() if "negative" not in key} for one in THREE]
    start = {"technique__start": "input"} if technique is INPAINT else {}
    common = {**technique, **start, **SMALL, "technique__strength": 0.6, "scheduler": "euler"}
    drawn = []
    for cell, picture in ours(folder, *plain, **common):
        mask = np.full(cell.pixels.shape[:2], 255, np.uint8) if cell.mask is None else cell.mask
        told = {"image": Image.fromarray(cell.pixels), "mask_image": Image.fromarray(mask), "strength": 0.6}
        drawn.append((cell, picture, told))
    for cell, picture, told in drawn:
        assert np.abs(theirs(kind, folder, cell, **told).astype(int) - picture).max() > 1

    def none_beside(self: Any, images: Any, rows: int, *others: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(rows, 0, images[0].shape[1]), torch.zeros(rows, 0, 4)

    monkeypatch.setattr(getattr(diffusers, kind), "prepare_image_latents", none_beside)
    for cell, picture, told in drawn:
        assert_same(picture, theirs(kind, folder, cell, **told))


def test_the_area_of_a_soft_mask_is_what_its_latents_regenerate(
    folders: Any, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Pillow's box filter has it. Where a mask's edges are those of latents, the nearest is the same."""
    masks: list[torch.Tensor] = []

    def kept(blend: str, known: torch.Tensor, mask: torch.Tensor, *others: Any) -> Any:
        masks.append(mask)
        return keep(blend, known, mask, *others)

    monkeypatch.setattr(inpaint, "keep", kept)
    area = {"technique__downsample": "area"}
    soft, aligned = {"mask": "ellipse", "mask__softness": 9.0}, {"mask": "half"}
    for form in (soft, aligned):
        (near, nearest), (cell, mean) = ours(folders("sd"), THREE[0], {**THREE[0], **area}, **{**INPAINT, **form})
        factor, (first, second) = cell.stage.factor, masks[-2:]
        side = cell.mask.shape[0] // factor
        expected = Image.fromarray(cell.mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
        assert np.allclose(second[0].numpy(), np.asarray(expected) / 255, atol=1e-6)
        assert np.allclose(first[0].numpy(), cell.mask[::factor, ::factor] / 255)
        assert np.array_equal(nearest, mean) == (form is aligned) and near.id != cell.id


@pytest.mark.parametrize("known", ["renoised", "clean", "held"])
@pytest.mark.parametrize("blend", ["each_step", "change_map"])
def test_what_is_of_latents_alone_is_as_left_out_of_pixels(config: Any, sampled: Any, blend: str, known: str) -> None:
    """The same cell: what a mask is of each pixel needs no mean, and its known pixels are the input's own already."""
    own = {"model": "analytic", "technique": "inpaint", "technique__blend": blend, "technique__known": known}
    own |= {"mask": "ellipse", "mask__softness": 3.0, "scheduler__steps": 6}
    plain = freeze(config(**own), {})
    for changes in ({"technique__paste": True}, {"technique__downsample": "area"}):
        assert freeze(config(**own, **changes), {}).id == plain.id
    image = sampled([plain], plain.model.load("cpu"), rows=4)[0].result.image
    kept = plain.mask == 0
    assert kept.any() and np.array_equal(to_pixels(image)[kept], plain.pixels[kept])


def test_known_pixels_are_pasted_after_decoding(folders: Any, ours: Ours) -> None:
    softened = {"mask__softness": 2.0, "technique__known": "renoised"}
    (_, decoded), (cell, pasted) = ours(
        folders("sd"), {**THREE[0]}, {**THREE[0], "technique__paste": True}, **{**INPAINT, **softened}
    )
    m = cell.mask[..., None] / 255
    assert np.abs(m * decoded + (1 - m) * cell.pixels - pasted).max() <= 1
    assert np.array_equal(pasted[cell.mask == 0], cell.pixels[cell.mask == 0])
    assert not np.array_equal(decoded[cell.mask == 0], cell.pixels[cell.mask == 0])


# -- flows -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "settings",
    [{}, {"third": False}, {"shift": 1.0}, {"use_dynamic_shifting": True}],
    ids=["usual", "no T5", "even", "mu"],
)
def test_stable_diffusion_3_draws_what_its_pipeline_draws(folders: Any, ours: Ours, settings: dict[str, Any]) -> None:
    folder = folders("sd3", **settings)
    for cell, picture in ours(folder, *THREE):
        assert_same(picture, theirs("StableDiffusion3Pipeline", folder, cell))


def test_stable_diffusion_3_is_stepped_by_classes_of_diffusers_as_its_pipeline_is(folders: Any, ours: Ours) -> None:
    folder, flow = folders("sd3"), {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
    for cell, picture in ours(folder, *THREE, scheduler="unipc"):
        assert_same(picture, theirs("StableDiffusion3Pipeline", folder, cell, "UniPCMultistepScheduler", flow))


def test_the_number_of_tokens_is_part_of_a_picture(folders: Any, ours: Ours) -> None:
    folder = folders("sd3")
    ids = {}
    for length in ("auto", 256, 20):
        ((cell, picture),) = ours(folder, {**THREE[0], "model__text__max_length": length})
        told = {"max_sequence_length": 256 if length == "auto" else length}
        assert_same(picture, theirs("StableDiffusion3Pipeline", folder, cell, **told))
        ids[length] = cell.id
    assert ids["auto"] == ids[256] != ids[20]


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize(
    "name, kind",
    [
        ("sd3", "StableDiffusion3Img2ImgPipeline"),
        ("flux", "FluxImg2ImgPipeline"),
        ("z_image", "ZImageImg2ImgPipeline"),
        ("qwen_image", "QwenImageImg2ImgPipeline"),
    ],
)
def test_flows_round_the_share_of_steps_as_their_pipelines(
    folders: Any, ours: Ours, name: str, kind: str, strength: float
) -> None:
    folder = folders(name)
    changes = {**IMG2IMG, **SMALL, "technique__strength": strength}
    for cell, picture in ours(folder, *THREE, **changes):
        told = {"image": Image.fromarray(cell.pixels), "strength": strength, "height": 32, "width": 32}
        assert_same(picture, theirs(kind, folder, cell, **told))


@pytest.mark.parametrize("height, width", [(32, 32), (48, 16)])
def test_flux_dev_is_told_a_scale_and_takes_true_guidance_too(
    folders: Any, ours: Ours, height: int, width: int
) -> None:
    folder = folders("flux")
    told = tuple({**one, "guidance__embedded": scale} for one, scale in zip(THREE, (None, 2.0, 7.0), strict=True))
    alone = {**THREE[0], "guidance__scale": "auto"}
    size = {"model__height": height, "model__width": width}
    for cell, picture in ours(folder, *told, alone, **size):
        assert_same(picture, theirs("FluxPipeline", folder, cell))
    assert (cell.guidance.scale, cell.guidance.embedded) == (1.0, 3.5)


def test_flux_schnell_draws_what_its_pipeline_draws(folders: Any, ours: Ours) -> None:
    folder = folders("flux", guidance=False, dynamic=False)
    plain = tuple({key: value for key, value in one.items() if "guidance" not in key} for one in THREE)
    for cell, picture in ours(folder, *plain, **SMALL):
        assert_same(picture, theirs("FluxPipeline", folder, cell))


@pytest.mark.parametrize("distilled", [False, True])
def test_flux2_klein_draws_what_its_pipeline_draws(folders: Any, ours: Ours, distilled: bool) -> None:
    folder = folders("klein", distilled=distilled)
    plain = [{key: value for key, value in one.items() if "negative" not in key} for one in THREE]
    size = {"model__height": 48, "model__width": 32}
    for cell, picture in ours(
        folder, *({**one, "guidance__scale": "auto"} if distilled else one for one in plain), **size
    ):
        assert_same(picture, theirs("Flux2KleinPipeline", folder, cell, height=48, width=32))


LONG = {"seed": 3, "prompt": "an old man by the sea " * 3, "guidance__scale": 3.0, "scheduler__steps": 5}


@pytest.mark.parametrize("schedule", [{}, {"use_dynamic_shifting": True}], ids=["usual", "mu"])
def test_z_image_draws_what_its_pipeline_draws(folders: Any, ours: Ours, schedule: dict[str, Any]) -> None:
    """Whose scale is ours less 1. Texts of several lengths are drawn in one go."""
    size = {"model__height": 48, "model__width": 32}
    folder = folders("z_image", **schedule)
    for cell, picture in ours(folder, *THREE, LONG, **size):
        assert_same(picture, theirs("ZImagePipeline", folder, cell, height=48, width=32))


def test_qwen_image_draws_what_its_pipeline_draws(folders: Any, ours: Ours) -> None:
    """Tokens keep their lengths under guidance, and the last level is the scheduler's own."""
    folder, size = folders("qwen_image"), {"model__height": 48, "model__width": 32, "scheduler": "euler"}
    for cell, picture in ours(folder, *THREE, LONG, **size):
        assert_same(picture, theirs("QwenImagePipeline", folder, cell, height=48, width=32))
    assert cell.levels[-1].t == pytest.approx(20)


LUMINA = ({**THREE[0], "prompt": "a dog by the sea", "guidance__negative_prompt": "a dog " * 12}, *THREE[1:], LONG)


def lumina2(folder: Path, cell: Cell, **told: Any) -> np.ndarray:
    """The pipeline takes its autoencoder's factor for 8, which is 2 here."""
    height, width = cell.stage.size
    return theirs("Lumina2Pipeline", folder, cell, height=4 * height, width=4 * width, **told)


@pytest.mark.parametrize("schedule", [{}, {"use_dynamic_shifting": True}], ids=["usual", "mu"])
def test_lumina_image_2_draws_what_its_pipeline_draws(folders: Any, ours: Ours, schedule: dict[str, Any]) -> None:
    """Rows keep their lengths under guidance, and a shift that depends on the size is one of the channels."""
    folder, size = folders("lumina2", **schedule), {"model__height": 48, "model__width": 32, "scheduler": "euler"}
    for cell, picture in ours(folder, *LUMINA, **size):
        own = lumina2(folder, cell)
        assert_same(picture, own)
        if cell.guidance.scale != 1:
            plain = lumina2(folder, cell, cfg_normalization=False)
            assert np.abs(own.astype(int) - plain).max() > 1


def test_lumina_images_truncated_guidance_is_an_interval(folders: Any, ours: Ours) -> None:
    """The first half of the steps."""
    folder, asked = folders("lumina2"), {**THREE[0], **SMALL, "scheduler": "euler", "scheduler__steps": 6}
    ((cell, whole),) = ours(folder, asked)
    interval = [cell.levels[2].ratio, None]
    ((cut, picture),) = ours(folder, asked, guidance__interval=interval)
    assert_same(picture, lumina2(folder, cut, cfg_trunc_ratio=0.5))
    assert np.abs(whole.astype(int) - picture).max() > 1
    assert cut.id != cell.id


def test_ways_to_say_an_embedded_scale_are_one_picture(folders: Any, config: Any) -> None:
    usual = {"model": "tiny_sd", "model__path": str(folders("flux")), **SMALL}
    ways: list[dict[str, Any]] = [
        {},
        {"guidance__embedded": 3.5},
        {"guidance__scale": 1.0},
        {"guidance": "none"},
        {"guidance": "embedded"},
        {"guidance": "embedded", "guidance__scale": 3.5},
    ]
    assert len({freeze(config(**usual, **way), {}).id for way in ways}) == 1
    others = [{"guidance__embedded": 2.0}, {"guidance": "embedded", "guidance__scale": 4.0}, {"guidance__scale": 2.0}]
    assert len({freeze(config(**usual, **way), {}).id for way in [{}, *others]}) == 4


@pytest.mark.parametrize(
    "name, settings, change, message",
    [
        ("flux", {"guidance": False}, {"guidance__scale": 3.0}, r"guidance\.scale=3: .* made to run unguided"),
        (
            "flux",
            {"guidance": False},
            {"guidance__scale": 3.0, "guidance__negative_prompt": "a dog"},
            r"guidance\.scale=3: .* made to run unguided.*\n.*guidance\.negative_prompt=a dog: .* made to run unguided",
        ),
        ("flux", {"guidance": False}, {"guidance": "embedded"}, r"guidance=embedded: .* takes no guidance scale"),
        ("sd", {}, {"guidance": "embedded"}, r"guidance=embedded: .* takes no guidance scale"),
        ("sd", {}, {"guidance__embedded": 2.0}, r"guidance\.embedded=2: .* takes no guidance scale"),
        ("sd3", {}, {"model__height": 512}, r"model\.height=512: at most 96"),
        ("lumina2", {}, {"model__width": 256}, r"model\.width=256: at most 128"),
        ("z_image", {}, {"model__width": 512}, r"model\.width=512: at most 256"),
        ("lumina2", {}, {"model__text__max_length": 257}, r"model\.text\.max_length=257: must be between 1 and 256"),
        ("klein", {"distilled": True}, {"guidance__scale": 4.0}, r"guidance\.scale=4: .* made to run unguided"),
        ("sd", {}, {"scheduler__shift": 2.0}, r"scheduler\.shift=2: of flows alone"),
        ("sd", {}, {"scheduler__spacing": "sd3"}, r"scheduler\.spacing=sd3: made for flows"),
    ],
)
def test_what_a_checkpoint_is_not_made_for_is_refused_before_anything_runs(
    folders: Any, config: Any, name: str, settings: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        freeze(config(model="tiny_sd", model__path=str(folders(name, **settings)), **change), {})


@pytest.mark.parametrize("name, settings", [("sd3", {}), ("flux", {"dynamic": False}), ("flux", {}), ("klein", {})])
def test_a_shift_is_another_picture_as_diffusers_shifts_it(
    folders: Any, ours: Ours, name: str, settings: dict[str, Any]
) -> None:
    """In the place of the checkpoint's; its own number is the same picture."""
    folder = folders(name, **settings)
    kind = {"sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline", "klein": "Flux2KleinPipeline"}[name]
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    own = "auto" if config["use_dynamic_shifting"] else config["shift"]
    asked = ({**THREE[0], "scheduler__shift": shift} for shift in (5.0, own, "auto"))
    (cell, picture), (same, _), (auto, _) = ours(folder, *asked, **SMALL, scheduler="euler")
    assert cell.id != same.id == auto.id
    moved = {**config, "shift": 5.0, "use_dynamic_shifting": False}
    assert_same(picture, theirs(kind, folder, cell, changed=moved, height=32, width=32))


# -- from the hub ------------------------------------------------------------------------------------------------------
MODELS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(shipped("conf").glob("model/*.yaml"))}
HUB = [name for name, own in MODELS.items() if "/" in own.get("path", "")]


@pytest.mark.parametrize("name", HUB)
def test_shipped_checkpoints_say_what_is_missing_before_anything_runs(config: Any, name: str) -> None:
    path = re.escape(MODELS[name]["path"])
    with from_cache_alone(), pytest.raises(BadInput, match=rf"^model\.path={path}: not in the hub's cache$"):
        freeze(config(model=name), {})


# -- any scheduler of diffusers ----------------------------------------------------------------------------------------
CLASSES = (
    "PNDMScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DDPMScheduler",
    "LCMScheduler",
)


@pytest.mark.parametrize("klass", [*CLASSES[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in CLASSES[2:])])
def test_any_scheduler_of_diffusers_draws_what_its_pipeline_draws(folders: Any, ours: Ours, klass: str) -> None:
    folder = folders("sd")
    kept = {"scheduler": "diffusers", "scheduler__cls": klass}
    for cell, picture in ours(folder, *DIVIDING, **kept):
        steps = {"num_inference_steps": next(o["scheduler__steps"] for o in DIVIDING if o["seed"] == cell.seed)}
        assert_same(picture, theirs("StableDiffusionPipeline", folder, cell, klass, **steps))


@pytest.mark.parametrize("klass", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"])
def test_any_scheduler_begins_from_a_picture_as_its_pipeline_does(folders: Any, ours: Ours, klass: str) -> None:
    folder = folders("sd")
    for cell, picture in ours(folder, *THREE, **{**IMG2IMG, "scheduler": "diffusers", "scheduler__cls": klass}):
        told = {"image": Image.fromarray(cell.pixels), "strength": 0.6}
        assert_same(picture, theirs("StableDiffusionImg2ImgPipeline", folder, cell, klass, **told))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scheduler__cls": "UniPC"}, r"scheduler\.cls=UniPC: no scheduler class of diffusers"),
        ({"scheduler__cls": "FlowMatchEulerDiscreteScheduler"}, "has a noise schedule of its own"),
        ({"technique": "inpaint", "input": "drawing", "mask": "box"}, "serves text_to_image and image_to_image alone"),
        ({"scheduler__spacing": "karras"}, "spacing=karras: must be one of"),
        ({"scheduler__cls": "RePaintScheduler"}, "its step wants more than a model's answer: original_image, mask"),
        ({"scheduler__cls": "DDIMInverseScheduler"}, "leads from a picture to noise"),
        ({"scheduler__cls": "DPMSolverMultistepInverseScheduler"}, "leads from a picture to noise"),
    ],
)
def test_what_such_a_scheduler_cannot_do_is_refused(
    folders: Any, config: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        freeze(
            config(**{"model": "tiny_sd", "model__path": str(folders("sd")), "scheduler": "diffusers", **changes}), {}
        )
