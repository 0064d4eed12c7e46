"""Mistakes at the real command line: told at once with key and cure, before a model is loaded or a file is written."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffsweep import app
from diffsweep.model.analytic import Analytic
from diffsweep.model.deepfloyd import DeepFloyd

SMALL = ("model=analytic", "scheduler.steps=4", "metric=none", "device=cpu")
PARTS = ("unet", "text_encoder", "tokenizer", "scheduler")
ANY = "…"  # in the messages expected here: whatever stands there

# what is typed, and every line that comes back
REFUSED = {
    # a typo in a key, in a value, in a choice
    "scheduler.step=3": ["scheduler.step: no such key; scheduler has name, steps, …; did you mean 'scheduler.steps'?"],
    "height=512": ["height: no such key; model=tiny_sd has model.height, whose model.path may be any folder, and …"],
    "hieght=512": ["hieght: no such key; model=tiny_sd has model.height, …"],
    "model=tiny_sd hieght=512": ["hieght: no such key; did you mean 'model.height'?"],
    "sede=3": ["sede: no such key; did you mean 'seed'?"],
    "technique=inpant": ["technique=inpant: no such technique; choose one of anagram, …; did you mean 'inpaint'?"],
    "technique=anagram view=flop": ["view=flop: no such view; choose one of flip, …; did you mean 'flip'?"],
    "upscale.noise_level=3": ["upscale.noise_level: no such key of upscale=none; …upscale=tiny, upscale=x4 have it"],
    "model=tiny model.height=64": ["model.height: no such key of this model; model=tiny_sd has it, …"],
    "model.height=64": ["model.height: no such key of model=analytic; model=tiny_sd has it, …"],
    "model=tiny_sd model.text.clean_caption=true": [
        "model.text.clean_caption: no such key of this model; model=if_l, model=if_m, model=if_xl, model=tiny have it"
    ],
    "scheduler.eta=1": ["scheduler.eta: no such key of scheduler=auto; scheduler=ddim has it"],
    "technique=inpaint input.path=coffee.png": ["input.path: no such key of input=world; input=file has it"],
    "guidance.eta=1": ["guidance.eta: no such key; guidance has name, scale, …"],
    "strength=0.3": ["strength: no such key; technique=image_to_image, technique=inpaint have technique.strength"],
    # as other tools call it
    "num_inference_steps=20": ["num_inference_steps: no such key; did you mean 'scheduler.steps'?"],
    "cfg_scale=3": ["cfg_scale: no such key; did you mean 'guidance.scale'?"],
    "size=512 model=tiny_sd": ["size: no such key; did you mean 'model.height' and 'model.width'?"],
    "model=tiny_sd model.size=512": ["model.size: no such key; …; did you mean 'model.height' and 'model.width'?"],
    "technique=img2img": ["technique=img2img: no such technique; …; did you mean 'image_to_image'?"],
    "technique=i2i": ["…; did you mean 'image_to_image'?"],
    "technique=SDEdit": ["…; did you mean 'image_to_image'?"],
    "technique=t2i": ["…; did you mean 'text_to_image'?"],
    "technique=txt2img": ["…; did you mean 'text_to_image'?"],
    "technique=inpainting": ["…; did you mean 'inpaint'?"],
    "scheduler=euler_a": ["…; did you mean 'euler_ancestral'?"],
    "n=4": ["n: no such key; each picture has a seed of its own: -m seed=0,1,2,3"],
    "num_images_per_prompt=4": ["num_images_per_prompt: no such key; …: -m seed=0,1,2,3"],
    "seed=0-3": ["seed=0-3: must be a whole number; to sweep, -m and range(0,4)"],
    "seed=0..3": ["seed=0..3: must be a whole number; to sweep, -m and range(0,4)"],
    "guidance.scale=1-7": ["guidance.scale=1-7: must be auto or a number; to sweep, -m and range(1,8)"],
    "seed=3-0": ["seed=3-0: must be a whole number"],
    # with dashes
    "--plan": ["--plan: keys are written without dashes: plan=true"],
    "--seed 3": ["--seed: keys are written without dashes: seed=3"],
    "--seed=3": ["--seed=3: keys are written without dashes: seed=3"],
    "-seed=3 --output-dir x": [
        "-seed=3: keys are written without dashes: seed=3",
        "--output-dir: keys are written without dashes: output_dir=x",
    ],
    "--guidance.scale": ["--guidance.scale: keys are written without dashes: guidance.scale=..."],
    "--multrun seed=1": ["--multrun: no such option; did you mean '--multirun'?"],
    "--cfg": ["argument --cfg/-c: expected one argument (see diffsweep --help)"],
    "model=owner/some-model": ["model=owner/some-model: no such model; …; model.path=owner/some-model reads a …"],
    "input=photos/a.png": ["input=photos/a.png: no such input; …; a picture's file is … input.path=photos/a.png"],
    "mask=x.png": ["mask=x.png: no such mask; …; a mask's file is mask=file mask.path=x.png"],
    "upscale=tyny": ["upscale=tyny: no such upscale; choose one of if_l, …, x4; …; did you mean 'tiny'?"],
    "upscale=tiny upscale.noise_level=1000 upscale.scheduler.steps=0": [
        "upscale.scheduler.steps=0: must be …",
    ],
    "upscale=tiny upscale.noise_lvl=10": ["upscale.noise_lvl: no such key; …; did you mean 'upscale.noise_level'?"],
    "model=tiny model.path=./nope": ["model.path=./nope: no such folder; give a checkpoint in the layout …"],
    "device=0": ["device=0: must be auto, cpu, cuda or cuda:N"],
    "'sweep.name=[a,b]'": ["sweep.name=[a,b]: must be auto or text"],
    "'sweep.name={a:1}'": ["sweep.name={a:1}: must be auto or text"],
    "output_dir=$HOME/x": ["output_dir=$HOME/x: no shell has replaced the $; double quotes let it, …"],
    "tracker=wandbb": ["tracker=wandbb: no such tracker; choose one of none, wandb; …; did you mean 'wandb'?"],
    "metric=defualt": [
        "metric=defualt: no such metric; choose one of all, anagram, clip, default, …; did you mean 'default'?"
    ],
    "scheduler.spacing=kerras scheduler.threshold=dynamik metric.names=[psnr,sim] tracker=wandb tracker.mode=oflin": [
        "scheduler.spacing=kerras: must be one of …fast27, …; did you mean 'karras'?",
        "scheduler.threshold=dynamik: must be one of …; did you mean 'dynamic'?",
        "metric.names: no metric 'sim'; there are …, psnr, …; did you mean 'ssim'?",
        "tracker.mode=oflin: must be one of …offline…; did you mean 'offline'?",
    ],
    "technique=inpaint mask.profile=liner mask.side=inwards technique.blend=eachstep": [
        "mask.profile=liner: must be one of linear, cosine, gaussian; did you mean 'linear'?",
        "mask.side=inwards: must be one of inward, centred, outward; did you mean 'inward'?",
        "technique.blend=eachstep: must be one of each_step, change_map; did you mean 'each_step'?",
    ],
    "technique=inpaint input.id=dgo/photo/0": ["input.id=dgo/photo/0: no subject 'dgo': …; did you mean 'dog'?"],
    "technique=inpaint input=drawing 'input.shapes=[circel 0.5 0.5 0.1 red]'": ["input.shapes: 'circel …circle, …"],
    # without a key
    "=3 +=box ++=owner/name ~=": [f"{word}: write key=value …" for word in ("=3", "+=box", "++=owner/name", "~=")],
    "\udcff=3": ["\\udcff=3: not UTF-8; …"],
    # unknown keys, added with +
    "tracker=wandb +other=3 +guidance.scal=7 +engine.row=4 +sweep.nam=x +grid.row=seed +metric.nam=x +tracker.tag=": [
        "other: unknown key; there are seed, prompt, …",
        "guidance.scal: unknown key of guidance=classifier_free; it has scale, …; did you mean 'scale'?",
        "engine.row: unknown key; it has rows, threads, trajectory, retries, grace, devices; did you mean 'rows'?",
        "sweep.nam: unknown key; it has name, replace; did you mean 'name'?",
        "grid.row: unknown key; it has rows, cols…; did you mean 'rows'?",
        "metric.nam: unknown key; it has name, names, …; did you mean 'name'?",
        "tracker.tag: unknown key of tracker=wandb; …; did you mean 'tags'?",
    ],
    "+tracker.mode=offline": ["tracker.mode: unknown key of tracker=none; it has none"],
    # what comes from elsewhere is auto, and no other word
    "prompt=null sweep.name=null scheduler.steps=null scheduler.spacing=checkpoint scheduler.threshold=checkpoint "
    "engine.threads=null grid.rows=null": [
        "prompt=null: must be auto or text",
        "sweep.name=null: must be auto or text",
        "scheduler.steps=null: must be auto or a whole number",
        "scheduler.spacing=checkpoint: must be one of auto, leading, …",
        "scheduler.threshold=checkpoint: must be one of auto, none, clip, dynamic",
        "engine.threads=null: must be auto or a whole number",
        "grid.rows=null: must be auto or text",
    ],
    "model=tiny model.text.path=null": ["model.text.path=null: must be auto or text"],
    # as it is typed
    "model=tiny 'model.lora=[../lora/a.safetensors:1,b]'": ["model.lora: no such key of this model; …"],
    "model=tiny_sd model.path=tiny 'model.lora=[../lora/a.safetensors:1,b]'": [
        "model.lora=[../lora/a.safetensors:1,b]: no key of such a checkpoint; leave it out"
    ],
    # wrong types
    "seed=1.5 guidance.scale=seven scheduler.steps=2.5 metric.names=psnr engine.rows=many device=[cpu] prompt=[a,b]": [
        "seed=1.5: must be a whole number",
        "guidance.scale=seven: must be auto or a number",
        "scheduler.steps=2.5: must be auto or a whole number",
        "metric.names=psnr: must be a list, as in [psnr]",
        "engine.rows=many: must be auto or a whole number",
        "device=[cpu]: must be text",
        "prompt=[a,b]: must be auto or text",
    ],
    "sweep=5 engine=5": ["sweep=5: must hold keys, not a value", "engine=5: must hold keys, not a value"],
    # a number, where a choice goes by its name
    "guidance=5": ["guidance=5: a choice goes by its name, not by a number; did you mean 'guidance.scale=5'?"],
    "-m guidance=1,3": ["guidance=1,3: a choice …; did you mean 'guidance.scale=1,3'?"],
    "-m 'mask=range(0,9,2)'": ["mask=range(0,9,2): a choice …; did you mean 'mask.softness=range(0,9,2)'?"],
    "scheduler=1e1": ["scheduler=1e1: a choice …; did you mean 'scheduler.steps=1e1'?"],
    "technique=3": ["technique=3: no such technique; choose one of anagram, …"],
    "guidance=[1]": ["guidance=[1]: no such guidance; choose one of classifier_free, embedded, none"],
    "view=[[a]]": ["view=[[a]]: no such view; choose one of flip, …"],
    # a choice made by its name alone, whose keys are those of another
    "technique=inpaint mask.name=file": [
        "mask=file: x0, y0, x1, y1: keys of mask=box; to choose, write mask=file, or in … - override /mask: file"
    ],
    # out of range
    "model=tiny_sd model.height=100000 model.width=100000": [
        "model.height=100000, width=100000: 100000 x 100000 pixels, and a … 178,956,970 at most, …"
    ],
    "-m model=tiny_sd model.height=16384 model.width=16384,64 scheduler.shift=-3": [
        "model.height=16384, width=16384: 16384 x 16384 pixels, …",
        "scheduler.shift=-3: must be above 0",
    ],
    "seed=-1 guidance.scale=-1 scheduler.steps=0 engine.rows=0 engine.threads=0 model.size=0 device=gpu": [
        "seed=-1: must be between 0 and 9223372036854775807",
        "guidance.scale=-1: must be at least 0",
        "scheduler.steps=0: must be at least 1",
        "engine.rows=0: must be at least 1",
        "engine.threads=0: must be between 1 and 1024",
        "model.size=0: must be between 1 and 32",
        "device=gpu: must be auto, cpu, cuda or cuda:N",
    ],
    "-m guidance.scale=nan,inf technique=inpaint mask.softness=-1,inf": [
        "guidance.scale=nan: must be auto or a finite number",
        "guidance.scale=inf: must be auto or a finite number",
        "mask.softness=-1: must be at least 0",
        "mask.softness=inf: must be a finite number",
    ],
    "technique=inpaint mask.x0=0.9": ["mask.x0=0.9, x1=0.75: x0 must not exceed x1"],
    "scheduler.steps=1001": ["scheduler.steps=1001: …1000 training steps"],
    "-m technique=iterative_denoise technique.t=-1,500,1000": [
        "technique.t=-1: must be between 0 and 999",
        "technique.t=1000: must be between 0 and 999",
    ],
    "technique=image_to_image technique.start_index=4": [
        "technique.start_index=4: must be between 0 and 3, the trajectory has 4 steps"
    ],
    "-m technique=image_to_image technique.strength=0.2,1.5": [
        "technique.strength=0.2: leaves no step of 4; at least 0.25 …",
        "technique.strength=1.5: must be between 0 and 1",
    ],
    "technique=gaussian_denoise technique.kernel=4": ["technique.kernel=4: must be odd"],
    # keys that do not go together
    "scheduler.spacing=fast27 scheduler.steps=30": [
        "scheduler.steps=30: spacing=fast27 fixes 27 steps; set steps=auto, or choose another spacing, …"
    ],
    "technique=image_to_image technique.start_index=1 technique.strength=0.5": [
        "technique.start_index and strength say the same thing twice: give one of them"
    ],
    "technique=inpaint technique.strength=0.5": ["technique.strength below 1 needs start=input"],
    "technique=inpaint input=none": ["input=none: this technique needs a picture; input=world, …"],
    "technique=anagram view=permute view.patches=3": ["view.patches=3: must divide the picture's side of 8 pixels"],
    "technique=anagram view=jigsaw model.size=6": [
        "view=jigsaw: needs a side divisible by 4, the picture has 6 pixels"
    ],
    "technique=anagram technique.prompts=[a,b,c]": ["technique.prompts: 3 given for 2 views"],
    "technique=hybrid technique.prompts=[a,b,c]": ["technique.prompts: 3 given for 2 bands"],
    "technique=hybrid technique.sigma=[1,4]": ["technique.sigma=[1,4]: must fall, from the lowest band up"],
    "grid.rows=sede": ["grid.rows=sede: no such axis in this sweep; it has none"],
    "-m seed=0,1 grid.rows=sed metric=none,default": [
        "grid.rows=sed: no such axis in this sweep; it has …seed; did you mean 'seed'?",
        "metric: cannot differ within a sweep",
    ],
    # lists of views
    "technique=anagram technique.views=[identity]": ["technique.views: 1 given, an anagram needs two or more"],
    "technique=anagram technique.views=flip": ["technique.views=flip: must be auto or a list, as in [flip]"],
    "technique=anagram 'technique.views=[identity,flp,{name:flip,axs:vertical},{name:rotate,angle:45}]'": [
        "technique.views: view=flp: not known; there are …; did you mean 'flip'?",
        "technique.views: view.axs: unknown key of view=flip; it has axis; did you mean 'axis'?",
        "technique.views: view.angle=45: must be 90, 180 or 270",
    ],
    "technique=anagram 'technique.views=[identity,{axis:vertical}]'": [
        "technique.views: view: a name, or keys with a name, are needed, not {'axis': 'vertical'}"
    ],
    "technique=anagram 'technique.views=[identity,{name:flip,1:2}]'": [
        "technique.views: view.1: unknown key of view=flip; it has axis"
    ],
    # files
    "technique=inpaint input=file mask=file": ["input.path: a file is needed, …", "mask.path: a file is needed, …"],
    "-m technique=inpaint input=file input.path=missing.png,corrupt.png,cut.png,folder mask=file mask.path=wide.png": [
        "input.path=missing.png: no such file",
        "input.path=corrupt.png: not a readable image (…)",
        "input.path=cut.png: not a readable image (…)",
        "input.path=folder: not a readable image (…)",
        "mask.path=wide.png: all of it is black: …",  # how large the picture is cannot be said
    ],
    "technique=inpaint input=file 'input.path=\"~nobody/x.png\"' mask=file mask.path=missing.png": [
        "input.path=~nobody/x.png: …",
        "mask.path=missing.png: no such file",
    ],
    "technique=inpaint mask=file mask.path=corrupt.png output_dir=corrupt.png": [
        "mask.path=corrupt.png: not a readable image (…)",
        "output_dir=corrupt.png: …folder…",
    ],
    # models and devices
    "model=tiny_sd model.lora=nope.safetensors": [
        "model.lora=nope.safetensors: must be a list, as in [nope.safetensors:0.8]"
    ],
    "model=tiny_sd model.lora=[nope.safetensors:0.8]": ["model.lora=nope.safetensors: no such file or folder"],
    "model=tiny_sd model.lora=[folder/nope.safetensors:0.8]": [
        "model.lora=folder/nope.safetensors: no such file or folder"
    ],
    "-m model=tiny model.path=missing,folder,corrupt.png,pickled,garbled,foreign": [
        "model.path=missing: no such folder; …",
        "model.path=folder: not an IF checkpoint, unet, …text_encoder, …missing in it",
        "model.path=corrupt.png: a single file; …",
        "model.path=pickled: no .safetensors file in unet/; model.bin is a pickle, which …save_pretrained…",
        "model.path=garbled: scheduler/scheduler_config.json cannot be read (…)",
        "model.path=foreign: not an IF checkpoint, …sample_size…",
    ],
    "model=tiny model.dtype=float16": [
        "model.dtype=float16: must be one of float32, bfloat16; did you mean 'bfloat16'?"
    ],
    "device=cuda": ["device=cuda: no CUDA device is available to torch; device=cpu runs on the processor"],
    # packages and names
    "plugins=[nonexistent,nix.sub]": [
        "plugins=nonexistent: no such package can be imported; …PYTHONPATH…",
        "plugins=nix.sub: no such package can be imported; …PYTHONPATH…",
    ],
    "plugins=nonexistent": ["plugins=nonexistent: must be a list, as in [nonexistent]"],
    "plugins=5": ["plugins=5: must be a list, as in [5]"],
    "sweep.name=..": ["sweep.name=..: …letters, digits, space …"],
    f"sweep.name={'long' * 99}": ["sweep.name=…letters, digits, space …"],
    # each once, however many cells have it
    "-m seed=-1,0,1 guidance.scale=-2,3 sweep.name=a/b technique=inpaint,forward_noise input=file input.path=cut.png": [
        "seed=-1: must be between …",
        "guidance.scale=-2: must be at least 0",
        "sweep.name=a/b: …letters, digits, space …",
        "input.path=cut.png: …",
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with files that do not serve."""
    monkeypatch.chdir(tmp_path)
    Image.new("L", (9, 8)).save("wide.png")
    Image.effect_noise((64, 64), 50).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:2000])
    Path("corrupt.png").write_bytes(b"not a picture")
    Path("folder").mkdir()
    for name in ("pickled", "garbled", "foreign"):
        for part in PARTS:
            Path(name, part).mkdir(parents=True)
        Path(name, "unet", "config.json").write_text("{}")
        Path(name, "scheduler", "scheduler_config.json").write_text("{" if name == "garbled" else "{}")
    shape = {"sample_size": 8, "in_channels": 3, "cross_attention_dim": 4}
    Path("pickled", "unet", "config.json").write_text(json.dumps(shape))
    Path("pickled", "text_encoder", "config.json").write_text(json.dumps({"d_model": 4}))
    Path("pickled", "unet", "model.bin").write_bytes(b"")
    return tmp_path


@pytest.fixture
def refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    hydra_restore_singletons: None,
) -> Callable[..., list[str]]:
    """Run the command with a mistake in it; what it says. No model may be loaded, no file written."""

    def load(model: Any, device: str) -> None:
        raise AssertionError(f"{model} was loaded")

    monkeypatch.setattr(Analytic, "load", load)
    monkeypatch.setattr(DeepFloyd, "load", load)

    def run(*words: str) -> list[str]:
        there = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        monkeypatch.setattr(sys, "argv", ["diffsweep", *SMALL, *words])
        assert app.main() == 2
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == there
        out, err = capfd.readouterr()
        assert out == "" and "Traceback" not in err
        return [line.removeprefix("diffsweep: ") for line in err.splitlines() if line.startswith("diffsweep: ")]

    return run


@pytest.mark.parametrize("typed", REFUSED, ids=lambda typed: typed[:60])
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(
    typed: str, refused: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cuda" in typed:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # as on a machine without one
    told = refused(*shlex.split(typed))
    assert len(told) == len(REFUSED[typed]), told
    for expected in REFUSED[typed]:
        pattern = ".*".join(map(re.escape, expected.split(ANY)))
        assert any(re.fullmatch(pattern, line) for line in told), told


def test_a_mistake_in_a_sweeps_file_is_told_as_one_that_is_typed(refused: Callable[..., list[str]]) -> None:
    Path("sweeps").mkdir()
    Path("sweeps/mine.yaml").write_text(
        "# @package _global_\n"
        "guidance:\n  scale: seven\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 0,-1\n"
    )
    assert sorted(refused("+sweeps=mine")) == [
        "guidance.scale=seven: must be auto or a number",
        "seed=-1: must be between 0 and 9223372036854775807",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed", ["seed=-1", "-m seed=0,1 technique=inpaint mask.softness=-1", "plugins=[nonexistent]"]
)
def test_a_process_of_its_own_exits_with_2_and_never_needs_torch(typed: str, folder: Path) -> None:
    code = "import sys; from diffsweep.app import main; code = main(); print('torch' in sys.modules); sys.exit(code)"
    there = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL, *shlex.split(typed)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "False\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("diffsweep: ")
    assert sorted(folder.rglob("*")) == there
