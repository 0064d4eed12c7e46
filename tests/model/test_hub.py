"""Weights from the hub, against a server of the same answers on this machine: what is asked for, and what is told."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from diffsweep.model.checkpoint import Checkpoint
from diffsweep.model.source import Source
from tests.checkpoints import FAMILIES

COMMIT = "a" * 40
NAME = "someone/tiny-if"


@dataclass
class Hub:
    """A hub with one repository. gated: its licence is not accepted; cuts: it ends within the weights, with or without
    having said how many bytes there are; asked: every path asked for."""

    folder: Path
    url: str = ""
    gated: bool = False
    cuts: str = ""
    asked: list[str] = field(default_factory=list)

    def tree(self) -> list[dict[str, Any]]:
        files = [f for f in sorted(self.folder.rglob("*")) if f.is_file()]
        return [self.entry(f) for f in files]

    def entry(self, file: Path) -> dict[str, Any]:
        data = file.read_bytes()
        told = {"type": "file", "path": file.relative_to(self.folder).as_posix(), "size": len(data)}
        told["oid"] = hashlib.sha1(data).hexdigest()
        if file.suffix in (".safetensors", ".bin"):
            told["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return told

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path = unquote(path.partition("?")[0])
        if not path.startswith((f"/api/models/{NAME}", f"/{NAME}/")):
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        if path.startswith("/api") and path.endswith("/revision/wrong"):
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id: wrong"}, b""
        if path.startswith(f"/api/models/{NAME}/tree/"):
            return 200, {}, json.dumps(self.tree()).encode()
        if path.startswith("/api"):
            siblings = [{"rfilename": entry["path"]} for entry in self.tree()]
            return 200, {}, json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode()
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted"}, b""
        file = self.folder / path.removeprefix(f"/{NAME}/resolve/").partition("/")[2]
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        told = self.entry(file)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{told.get("lfs", told)["oid"]}"'}
        return 200, headers, file.read_bytes()


@pytest.fixture
def hub(checkpoint: Path, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(Path(shutil.copytree(checkpoint, tmp_path / "repository")))
    (hub.folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.respond(body=False)

        def do_GET(self) -> None:
            self.respond(body=True)

        def respond(self, body: bool) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            status, headers, data = hub.answer(self.path)
            self.send_response(status)
            cut = data[: len(data) // 2] if hub.cuts and ".safetensors" in self.path else data
            told = len(cut) if hub.cuts == "untold" and body else len(data)
            for key, value in {**headers, "Content-Length": str(told)}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(cut)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def command(hub: Hub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, with that hub and a home of its own."""
    home = {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        script = Path(sys.executable).parent / "diffsweep"
        settings = ["scheduler.steps=2", "device=cpu", "prompt=a dog", "metric=none"]
        environment = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
        return subprocess.run(
            [script, f"model.path={NAME}", *settings, *words],
            env=environment | {"HF_ENDPOINT": hub.url} | home | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_a_repository_is_downloaded_once_without_its_pickles_and_is_the_same_cell_as_its_folder(
    command: Command, hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    first = command()
    assert first.returncode == 0, first.stderr
    downloaded = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert any("unet/diffusion_pytorch_model.safetensors" in line for line in downloaded)
    assert not any(".bin" in line for line in hub.asked)
    hub.asked.clear()
    again = command("seed=1")
    assert again.returncode == 0, again.stderr
    assert hub.asked == []  # nothing calls home once it is in the cache
    same = command(f"model.path={checkpoint}", HF_HUB_OFFLINE="1")
    assert same.returncode == 0 and "1 already stored, 0 to sample" in same.stderr


@pytest.mark.slow
def test_a_finished_sweep_needs_no_weights(command: Command, hub: Hub, checkpoint: Path) -> None:
    """The hub's list tells their hashes: only configurations and vocabularies come."""
    assert command(f"model.path={checkpoint}").returncode == 0
    stored = command()
    assert stored.returncode == 0 and "1 already stored, 0 to sample" in stored.stderr
    assert not any(".safetensors" in line for line in hub.asked)


@pytest.mark.slow
def test_a_revision_is_pinned(command: Command, hub: Hub, tmp_path: Path) -> None:
    assert command(f"model.path={NAME}@{COMMIT}").returncode == 0
    assert (tmp_path / "hf" / "hub" / "models--someone--tiny-if" / "snapshots" / COMMIT / "unet").is_dir()
    wrong = command(f"model.path={NAME}@wrong")
    assert wrong.returncode == 2
    assert f"model.path={NAME}@wrong: {NAME} has no revision wrong" in wrong.stderr


@pytest.mark.slow
def test_a_licence_and_a_token_are_asked_for(command: Command, hub: Hub) -> None:
    hub.gated = True
    refused = command()
    assert refused.returncode == 2
    assert f"its licence is not accepted: accept it at https://huggingface.co/{NAME}" in refused.stderr
    assert "you have no token of the hub: run `hf auth login`, or set HF_TOKEN" in refused.stderr
    with_token = command(HF_TOKEN="hf_secret")
    assert "its licence is not accepted" in with_token.stderr and "no token" not in with_token.stderr
    assert "hf_secret" not in with_token.stderr + with_token.stdout
    assert not any(".safetensors" in line for line in hub.asked)


@pytest.mark.slow
def test_a_name_that_is_nobodys_is_told(command: Command) -> None:
    told = command("model.path=someone/else")
    assert told.returncode == 2
    assert "model.path=someone/else: no such folder, and no such repository on the hub" in told.stderr


@pytest.mark.slow
def test_without_a_network_the_way_around_is_told(command: Command) -> None:
    for more in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        told = command(**more)
        assert told.returncode == 2
        assert f"if https://huggingface.co/{NAME} asks for a licence to be accepted, accept it" in told.stderr
        words, fetch, licence, then, key = told.stderr.splitlines()
        assert words.startswith(f"diffsweep: model.path={NAME}: ") and words.endswith("where there is a network, run")
        assert fetch.startswith(f"  hf download {NAME} ") and "licence" in licence
        assert (then, key) == ("diffsweep: and give its folder:", "  model.path=FOLDER")


@pytest.mark.slow
def test_the_download_that_is_told_fetches_what_is_needed_and_no_more(
    command: Command, hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    """By hf itself, from that hub."""
    (told,) = re.findall(r"(?m)^  (hf download .*)$", command(HF_HUB_OFFLINE="1").stderr)
    program, *words = [word.replace("FOLDER", "fetched") for word in shlex.split(told)]
    weights = (hub.folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    extra = [
        "whole.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae_1_0/model.safetensors",
        "a.onnx",
    ]
    for name in extra:
        (hub.folder / name).parent.mkdir(exist_ok=True)
        (hub.folder / name).write_bytes(weights)
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    subprocess.run([Path(sys.executable).parent / program, *words], env=environment, cwd=tmp_path, check=True)
    came = {f.relative_to(tmp_path / "fetched").as_posix() for f in (tmp_path / "fetched").rglob("*") if f.is_file()}
    assert "unet/diffusion_pytorch_model.safetensors" in came
    assert not {*extra, "unet/diffusion_pytorch_model.bin"} & came
    assert command(f"model.path={checkpoint}").returncode == 0
    assert "1 already stored, 0 to sample" in command("model.path=fetched", HF_HUB_OFFLINE="1").stderr


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_the_download_has_the_weights_of_one_variant(variant: str | None) -> None:
    """Of the files of SDXL's, FLUX.1's and an old DDPM's repository, by the hub's own rule for patterns."""
    wanted = {
        None: ["diffusion_pytorch_model.safetensors", "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
               "text_encoder_2/model-00002-of-00002.safetensors", "vae/diffusion_pytorch_model.safetensors",
               "unet/diffusion_pytorch_model.safetensors"],
        "fp16": ["unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16-00001-of-00002.safetensors",
                 "text_encoder_2/model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"],
    }  # fmt: skip
    small = ["model_index.json", "tokenizer/merges.txt", "tokenizer_2/spiece.model", "unet/config.json"]
    others = ["sd_xl_base_1.0.safetensors", "vae_1_0/diffusion_pytorch_model.safetensors", "unet/model.onnx",
              "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin", "text_encoder/flax_model.msgpack",
              "unet/diffusion_pytorch_model.non_ema.safetensors"]  # fmt: skip
    hub = Source("someone/else", variant).hub
    words = shlex.split(hub._command)
    told = {option: [b for a, b in pairwise(words) if a == option] for option in ("--include", "--exclude")}
    files = [*small, *others, *wanted[None], *wanted["fp16"]]
    kept = filter_repo_objects(files, allow_patterns=told["--include"], ignore_patterns=told["--exclude"] or None)
    assert sorted(kept) == sorted([*small, *wanted[variant]])


def test_the_download_is_of_the_parts_that_the_choice_has() -> None:
    def places(**keys: str) -> list[str]:
        weights = Checkpoint("someone/else", **keys).source.hub.weights
        return [pattern.rpartition("*.safetensors")[0] for pattern in weights]

    assert places(default_for="StableDiffusionXLPipeline") == ["unet/", "vae/", "text_encoder/", "text_encoder_2/"]
    assert places(default_for="FluxPipeline") == ["transformer/", "vae/", "text_encoder/", "text_encoder_2/"]
    assert places(default_for="DiTPipeline") == ["transformer/", "vae/"]
    assert places() == places(default_for="DDPMPipeline")  # one may lie at the root


@pytest.mark.slow
@pytest.mark.parametrize("how", ["told", "untold"])
def test_weights_that_come_cut_are_told_and_come_again(command: Command, hub: Hub, how: str) -> None:
    hub.cuts = how
    told = command()
    assert told.returncode == 2 and "a bug of diffsweep" not in told.stderr, told.stderr
    lines = told.stderr.splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.startswith(f"  hf download {NAME} --include"))
    assert f"model.path={NAME}: " in lines[place - 1] and lines[-1] == "  model.path=FOLDER"
    hub.cuts = ""
    again = command()
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_weights_that_contradict_their_configuration_are_told_once_they_are_there(command: Command, hub: Hub) -> None:
    """Before a text encoder comes."""
    (file,) = (hub.folder / "unet").glob("*.safetensors")
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if name != "conv_out.weight"}, file, {"format": "pt"})
    told = command()
    assert told.returncode == 2
    line = f"model.path={NAME}: the weights in unet/ are not those that its config.json describes: 1 tensor missing, as"
    assert told.stderr.splitlines()[-1] == f"diffsweep: {line} conv_out.weight"
    assert not any("text_encoder" in asked and ".safetensors" in asked for asked in hub.asked)


@pytest.mark.slow
def test_a_disk_too_small_is_told_before_the_download(command: Command, hub: Hub, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    small = "import shutil, collections\nDisk = collections.namedtuple('usage', 'total used free')\n"
    (site / "sitecustomize.py").write_text(small + "shutil.disk_usage = lambda path: Disk(10**9, 10**9, 1000)\n")
    told = command(PYTHONPATH=str(site))
    assert told.returncode == 2
    assert "to download, 0.0 GB free" in told.stderr and "HF_HOME" in told.stderr
    assert not any(".safetensors" in line for line in hub.asked)


def in_shards(folder: Path) -> None:
    """Text in two encoders, each part's weights in many files, beside a pickle."""
    pipeline = FAMILIES["sdxl"]()
    pipeline.save_pretrained(folder, max_shard_size="20KB")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")


def in_half(folder: Path) -> None:
    """Weights of a variant alone."""
    FAMILIES["pixart"]().to(torch.float16).save_pretrained(folder, variant="fp16")


def at_root(folder: Path) -> None:
    """All at the root, without an index, and the scheduler in words of old."""
    pipeline = FAMILIES["ddpm"]()
    pipeline.unet.save_pretrained(folder)
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    old = {"_class_name": "GaussianDDPMScheduler", "timesteps": 1000, "variance_type": "fixed_large"}
    (folder / "scheduler_config.json").write_text(json.dumps(old))


@pytest.mark.slow
@pytest.mark.parametrize("layout, words", [(in_shards, ()), (in_half, ("model.variant=fp16",)), (at_root, ())])
def test_every_layout_comes_whole_and_without_its_pickles(
    command: Command, hub: Hub, tmp_path: Path, layout: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    hub.folder = tmp_path / "laid_out"
    hub.folder.mkdir()
    layout(hub.folder)
    settings = ("model=tiny_sd", *words, *(["prompt=auto"] if layout is at_root else []))
    first = command(*settings, f"model.path={NAME}")
    assert first.returncode == 0, first.stderr
    assert not any(".bin" in line for line in hub.asked)
    same = command(*settings, f"model.path={hub.folder}", HF_HUB_OFFLINE="1")
    assert same.returncode == 0 and "1 already stored, 0 to sample" in same.stderr


@pytest.mark.slow
def test_of_a_repository_the_missing_variant_is_told_from_its_list(command: Command, hub: Hub, tmp_path: Path) -> None:
    hub.folder = tmp_path / "laid_out"
    in_half(hub.folder)
    told = command("model=tiny_sd", f"model.path={NAME}", "model.variant=null")
    assert told.returncode == 2
    line = f"diffsweep: model.path={NAME}: no .safetensors file in transformer/; there is variant=fp16"
    assert told.stderr.strip().splitlines()[-1] == line
    assert not any(".safetensors" in asked for asked in hub.asked)


def test_weights_come_from_the_commit_that_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch that moves between planning and loading changes nothing."""
    import huggingface_hub

    from diffsweep.model.hub import Repository

    head, asked = "a" * 40, []

    def download(name: str, *, revision: str, **options: object) -> str:
        asked.append(revision)
        return str(tmp_path / (head if revision == "main" else revision))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    repository = Repository("someone/else")
    first = repository.folder
    head = "b" * 40
    assert repository.fetch(["unet/a.safetensors"]) == first
    assert asked == ["main", "a" * 40]
