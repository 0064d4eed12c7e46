"""Where weights lie, and whether they are complete. Needs no torch.

A path names an embedded folder, a folder, or a repository of the Hugging Face hub: `owner/name`, or
`owner/name@revision`. Weights are read from safetensors alone. Planning needs a repository's small files and its list,
which holds the weights' hashes; the weights are downloaded when they are loaded.

If a folder has a SHA256SUMS (as sha256sum writes it), its files are checked against that; the embedded ones have one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from diffsweep.core.files import irregular, is_file, is_folder, is_there, require_regular
from diffsweep.core.keys import AUTO
from diffsweep.core.problems import BadInput
from diffsweep.model.hub import SMALL, Repository

EMBEDDED = ("tiny", "tiny_upscale", "tiny_clip", "tiny_sd", "tiny_flow")  # folders beside this file
SUMS = "SHA256SUMS"
TENSORS = ".safetensors"
ROOTED = "diffusion_pytorch_model"  # how the name of a network's weights begins, where they have no folder
# where any family's pipeline has weights
WEIGHTED = ("unet/", "transformer/", "vae/", "text_encoder*/", ROOTED)
AT_ROOT = {"unet": "config.json", "scheduler": "scheduler_config.json"}  # of what diffusers saved without folders once
NETWORKS = ("unet", "transformer")
HALVED = {"float16": ("fp16", "bf16"), "bfloat16": ("bf16", "fp16")}  # variants by a network's type
LARGE = 50_000_000  # bytes: a larger file's hash is kept from run to run
_HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_WEIGHTS = re.compile(r"\w+?(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.safetensors(?:\.index(?:\.(\w+))?\.json)?")


@dataclass(frozen=True)
class Source:
    """A checkpoint's place. variant: which weights, where several are stored: `fp16` for `model.fp16.safetensors`. key:
    what the path is called in messages. weighted: where the weights that are read lie, as patterns; none where that is
    the root."""

    path: str
    variant: str | None = None
    key: str = "path"
    weighted: tuple[str, ...] = WEIGHTED

    @property
    def hub(self) -> Repository | None:
        """The repository, where the path is not a folder's."""
        named = _HUB.fullmatch(self.path)
        a_file = self.path.endswith(TENSORS)
        if not named or a_file or self.path in EMBEDDED or is_there(self.path) or not _name(named[1]):
            return None
        name = f"*.{self.variant}*{TENSORS}" if self.variant else f"*{TENSORS}"
        weights = tuple(place + name for place in self.weighted or [""])
        return _repository(named[1], named[2] or "main", self.key, weights, () if self.variant else (f"*.*{TENSORS}",))

    @property
    def root(self) -> Path:
        """The folder; a repository's holds the small files, and what else was fetched."""
        if self.hub:
            return self.hub.folder
        return Path(__file__).parent / self.path if self.path in EMBEDDED else Path(self.path).expanduser()

    def place(self, part: str) -> str:
        """The folder of a part, `.` where its files lie at the root."""
        at_root = part in AT_ROOT and not is_folder(self.root / part) and is_file(self.root / AT_ROOT[part])
        return "." if at_root else part

    def config(self, part: str, name: str) -> dict[str, Any]:
        file = self.root / self.place(part) / name
        try:
            require_regular(file)
            found = json.loads(file.read_text())
            if not isinstance(found, dict):
                raise ValueError("keys and values are expected")
            return found
        except (OSError, ValueError) as error:
            place = name if part == "." else f"{part}/{name}"
            raise BadInput(f"{self.key}={self.path}: {place} cannot be read ({error})") from None

    def require(self, parts: Iterable[str], kind: str, library: str = "diffusers") -> None:
        """BadInput unless it has these folders, as a checkpoint of this kind has."""
        root, parts = self.root, [self.place(part) for part in parts]
        if self.hub and any(not is_folder(root / part) for part in parts):
            self.hub.fetch_small()  # another tool may have downloaded a part of it
        if not is_folder(root):
            raise BadInput(f"{self.key}={self.path}: no such folder; give {kind} in the layout {library} saves")
        if missing := [part for part in parts if not is_folder(root / part)]:
            raise BadInput(f"{self.key}={self.path}: not {kind}, {', '.join(missing)} missing in it")

    def files(self, parts: Collection[str], weighted: Collection[str]) -> list[str]:
        """The files of these parts, of weights the variant's; BadInput where one of the weighted parts lacks any, or
        SHA256SUMS lists a file that is not there."""
        root = self.root
        parts, weighted = ([*dict.fromkeys(map(self.place, names))] for names in (parts, weighted))
        folders = [root / part for part in parts if (root / part).is_dir()]
        inside = [f for folder in folders for f in folder.iterdir()]
        there = [f.relative_to(root).as_posix() for f in inside if f.is_file()]
        if odd := [(f, irregular(f)) for f in inside if f.exists() and not f.is_file() and not f.is_dir()]:
            raise BadInput(f"{self.key}={self.path}: {f.relative_to(root)} is {kind}, not a file" for f, kind in odd)
        gone = [(name, sha256) for name, sha256 in sums(root).items() if not (root / name).is_file()]
        if gone:
            raise BadInput(
                f"{self.key}={self.path}: {name} is missing: SHA-256 {sha256} is expected" for name, sha256 in gone
            )
        try:
            return self._chosen(there, parts, weighted)
        except BadInput:
            if self.hub is None:
                raise
            self.hub.fetch_small()
            return self._chosen(list(self.hub.files), parts, weighted)

    def _chosen(self, names: Sequence[str], parts: Iterable[str], weighted: Collection[str]) -> list[str]:
        chosen = []
        for part in parts:
            own = [name for name in names if str(PurePosixPath(name).parent) == part]
            found = {name: _variant(name) for name in own if _WEIGHTS.fullmatch(PurePosixPath(name).name)}
            kept = [n for n in own if (found[n] == self.variant if n in found else n.endswith(SMALL))]
            weights = [name for name in kept if name.endswith(TENSORS)]
            if part in weighted and not weights:
                place = "it" if part == "." else f"{part}/"
                raise BadInput(f"{self.key}={self.path}: no {self._wanted} in {place}{self._instead(own, found)}")
            for index in (name for name in kept if name in found and name.endswith(".json")):
                listed = self.config(part, PurePosixPath(index).name).get("weight_map", {}).values()
                gone = sorted(set(listed) - {PurePosixPath(name).name for name in weights})
                if gone:
                    raise BadInput(f"{self.key}={self.path}: {part}/ is not whole: {', '.join(gone)} missing")
            chosen += kept
        return sorted(chosen)

    @property
    def _wanted(self) -> str:
        return f"{TENSORS} file" + (f" of variant {self.variant}" if self.variant else "")

    def _instead(self, names: Sequence[str], found: Mapping[str, str | None]) -> str:
        if variants := sorted({str(variant or "null") for variant in found.values()}):
            return f"; there is variant={', '.join(variants)}"
        pickles = [PurePosixPath(name).name for name in names if name.endswith((".bin", ".pt", ".ckpt"))]
        return f"; {', '.join(pickles)} is a pickle, which is never loaded{self._converted}" if pickles else ""

    @property
    def _converted(self) -> str:
        """What makes safetensors of a pipeline's pickles."""
        if not self.weighted:
            return ""
        hub = self.hub
        place = hub.name if hub else self.path
        revision = f", revision={hub.revision!r}" if hub and hub.revision != "main" else ""
        return (
            ": where you trust it, convert it once in Python, `from diffusers import DiffusionPipeline; pipeline = "
            f"DiffusionPipeline.from_pretrained({place!r}{revision}); "
            f"pipeline.save_pretrained('FOLDER', safe_serialization=True)`, and give FOLDER instead"
        )

    def stamp(self, names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
        """Sizes and dates of those files that are there: others, where one is written anew."""
        states = ((name, (self.root / name).stat()) for name in names if (self.root / name).is_file())
        return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)

    def digest(self, names: Sequence[str]) -> str:
        """SHA-256 over names and contents; BadInput naming each file that is damaged."""
        root, listed = self.root, self.hub.files if self.hub and self.missing(names) else {}
        found = {n: hashed(root / n) if (root / n).is_file() else listed[n][1] for n in names}
        damaged = [f"{self.key}={self.path}: {name} is missing" for name, sha256 in found.items() if not sha256]
        damaged += [
            f"{self.key}={self.path}: {name} is damaged: SHA-256 {sha256} is expected, {found[name]} found"
            for name, sha256 in sums(root).items()
            if found.get(name, sha256) != sha256
        ]
        damaged += [
            f"{self.key}={self.path}: {name} is cut short or damaged"
            for name in names
            if name.endswith(TENSORS)
            and (root / name).is_file()
            and name not in sums(root)
            and not _is_complete(root / name)
        ]
        if damaged:
            raise BadInput(damaged)
        whole = hashlib.sha256()
        for name in names:
            whole.update(name.encode())
            whole.update(bytes.fromhex(found[name]))
        return whole.hexdigest()

    def size(self, names: Sequence[str]) -> int:
        """Bytes of these files, there or still to be downloaded."""
        here = [self.root / name for name in names if (self.root / name).is_file()]
        return sum(f.stat().st_size for f in here) + sum(self.missing(names).values())

    def missing(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes to download, by file, before these can be read."""
        hub = self.hub
        gone = [name for name in names if not (hub.folder / name).is_file()] if hub else []
        return {f"{hub.path}/{name}": hub.files[name][0] for name in gone} if hub else {}

    def fetch(self, names: Sequence[str]) -> Path:
        """The folder, these files in it."""
        if self.hub and self.missing(names):
            return self.hub.fetch(names)
        return self.root


def suited(path: str, variant: str | None, dtype: str) -> Source:
    """A checkpoint's place. variant: auto is the one that suits a network of this type best, of those that are stored:
    in half precision a halved one, else none."""
    if variant != AUTO:
        return Source(path, variant)
    places = [Source(path).root / part for part in NETWORKS] if not Source(path).hub else []
    return Source(path, _suited(path, dtype, tuple(place.stat().st_mtime_ns for place in places if place.is_dir())))


@lru_cache
def _suited(path: str, dtype: str, changed: tuple[int, ...]) -> str | None:
    source, wanted = Source(path), HALVED.get(dtype, ())
    try:
        own = [f"{part}/{file.name}" for part in NETWORKS for file in _inside(source.root / part)]
        fetched = any(name.endswith(TENSORS) for name in own)
        names = own if fetched or not source.hub else [*source.hub.files]
    except BadInput:  # of a hub that cannot be asked: whoever reads the checkpoint tells
        return next(iter(wanted), None)
    weights = [PurePosixPath(name) for name in names if name.endswith(TENSORS)]
    there = {_variant(w.name) or "" for w in weights if w.parent.name in NETWORKS and _WEIGHTS.fullmatch(w.name)}
    return next((one or None for one in (*wanted, "", *sorted(there)) if one in there), None)


def _inside(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def _name(text: str) -> bool:
    """Whether the hub would take it for a repository's name: `./folder` it would not."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


@lru_cache
def _repository(*own: Any) -> Repository:
    return Repository(*own)


def _variant(name: str) -> str | None:
    shard = _WEIGHTS.fullmatch(PurePosixPath(name).name)
    assert shard is not None
    return next((variant for variant in shard.groups() if variant), None)


def sums(root: Path) -> dict[str, str]:
    """The SHA-256 of each file that a folder's SHA256SUMS lists; nothing where there is no such list."""
    file = root / SUMS
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read as the list that sha256sum writes ({error})") from None
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    if not all(len(words) == 2 and re.fullmatch(r"[0-9a-fA-F]{64}", words[0]) for words in lines):
        raise BadInput(f"{file}: not a list as sha256sum writes it")
    return {PurePosixPath(name.removeprefix("*")).as_posix(): sha256 for sha256, name in lines}


def header(file: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file says of each tensor in it, by name, and at which byte their contents begin."""
    with file.open("rb") as data:
        length = int.from_bytes(data.read(8), "little")
        found = json.loads(data.read(length)) if length < 100_000_000 else {}
    return {name: tensor for name, tensor in found.items() if name != "__metadata__"}, 8 + length


def _is_complete(file: Path) -> bool:
    """Whether a safetensors file has the size that its header gives."""
    try:
        tensors, begin = header(file)
        return file.stat().st_size == begin + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def hashed(file: Path) -> str:
    """A file's SHA-256. The hub's cache has large files by their hash; of others it is kept, by size and date."""
    if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", file.resolve().name):
        return file.resolve().name
    state = file.stat()
    return _hashed(str(file.resolve()), state.st_size, state.st_mtime_ns)


@lru_cache
def _hashed(name: str, size: int, changed: int) -> str:
    kept = _kept() / hashlib.sha256(f"{name} {size} {changed}".encode()).hexdigest()
    if size >= LARGE and kept.is_file():
        return kept.read_text()
    with Path(name).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if size >= LARGE:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.with_suffix(f".{os.getpid()}").write_text(sha256)
            kept.with_suffix(f".{os.getpid()}").replace(kept)
        except OSError:
            pass  # a home that cannot be written to: hashed again next time
    return sha256


def _kept() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffsweep" / "sha256"
