"""Weights that are not what they should be are told before anything is loaded, with both hashes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from diffsweep.core.problems import BadInput
from diffsweep.model import source
from diffsweep.model.clip import Clip
from diffsweep.model.deepfloyd import DeepFloyd


def folder(name: str) -> Path:
    return source.Source(name).root


MODELS = {"tiny": DeepFloyd, "tiny_upscale": lambda path: DeepFloyd(path, enlarges=True), "tiny_clip": Clip}


@pytest.fixture(params=MODELS)
def embedded(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An embedded model's name, its folder a copy that may be damaged."""
    shutil.copytree(folder(request.param), tmp_path / request.param)
    monkeypatch.setattr(source, "__file__", str(tmp_path / "source.py"))
    source._hashed.cache_clear()
    return request.param


def weights(name: str) -> Path:
    return max(folder(name).rglob("*.safetensors"), key=lambda f: f.stat().st_size)


def test_the_embedded_weights_are_as_listed(embedded: str) -> None:
    listed = source.sums(folder(embedded))
    assert weights(embedded).relative_to(folder(embedded)).as_posix() in listed
    assert len(MODELS[embedded](embedded).fingerprint()) == 64


def test_damaged_weights_are_told_with_the_hash_expected_and_found(embedded: str) -> None:
    file = weights(embedded)
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    with pytest.raises(BadInput) as caught:
        MODELS[embedded](embedded).fingerprint()
    name = file.relative_to(folder(embedded)).as_posix()
    assert str(caught.value) == f"path={embedded}: {name} is damaged: SHA-256 {expected} is expected, {found} found"


def test_missing_weights_are_told_with_the_hash_expected(embedded: str) -> None:
    file = weights(embedded)
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    with pytest.raises(BadInput, match=rf"path={embedded}: .*safetensors is missing: SHA-256 {expected} is expected"):
        MODELS[embedded](embedded).fingerprint()


def test_all_embedded_weights_are_safetensors_and_stay_below_60_mb() -> None:
    everything = [f for name in source.EMBEDDED for f in folder(name).rglob("*") if f.is_file()]
    assert {f.suffix for f in everything} <= {".safetensors", ".json", ".md", ".png", ""}
    assert sum(f.stat().st_size for f in everything if f.suffix == ".safetensors") < 60e6


def test_a_list_of_hashes_may_have_dots_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    good = hashlib.sha256(b"{}").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"\n{good}  ./a.json\n\n")
    here = source.Source(str(tmp_path))
    assert len(here.digest(here.files(".", ()))) == 64
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(BadInput, match=r"a\.json is damaged"):
        here.digest(here.files(".", ()))
    (tmp_path / "SHA256SUMS").write_text("nothing\n")
    with pytest.raises(BadInput, match="not a list as sha256sum writes it"):
        here.digest(here.files(".", ()))


@pytest.mark.parametrize("content", [bytes(range(256)), b"\xff\xfe", b"a b\n", b"\0 \0\n", b"0" * 64 + b"\n"])
def test_what_is_no_list_of_hashes_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(content)
    with pytest.raises(BadInput, match="sha256sum writes"):
        source.sums(tmp_path)
