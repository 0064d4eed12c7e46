"""Repositories of the Hugging Face hub, through its own library, and from its cache where that has them.

Every error says how to mend it: a licence to accept, a token, a wrong name, no network.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from diffsweep.core.problems import BadInput

SMALL = ("json", "model", "txt", "jinja")  # kinds of file that planning needs: configurations, vocabularies
_from_cache_alone = False


@contextmanager
def from_cache_alone() -> Iterator[None]:
    """Within, what the hub would have to be asked for is a BadInput."""
    global _from_cache_alone
    before, _from_cache_alone = _from_cache_alone, True
    try:
        yield
    finally:
        _from_cache_alone = before


@dataclass(frozen=True)
class Repository:
    """name: owner/name. revision: a commit, tag or branch. weights: patterns of the files with weights that are read of
    it; others: of those that match too, and are not."""

    name: str
    revision: str = "main"
    key: str = "path"  # what it is called in messages
    weights: tuple[str, ...] = ("*.safetensors",)
    others: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.name if self.revision == "main" else f"{self.name}@{self.revision}"

    @cached_property
    def folder(self) -> Path:
        """Its snapshot in the cache, with every small file in it; what it lacks is downloaded."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        small = [f"*.{kind}" for kind in SMALL]
        try:
            return self._snapshot(small, self.revision, cached=True)
        except LocalEntryNotFoundError:
            with self._problems():
                return self._snapshot(small, self.revision)

    def fetch_small(self) -> None:
        self.fetch([f"*.{kind}" for kind in SMALL])

    def fetch(self, patterns: Sequence[str]) -> Path:
        """The snapshot with these files in it, of the commit that was looked at before, wherever a branch has gone."""
        with self._problems():
            return self._snapshot(patterns, self.folder.name)

    def _snapshot(self, patterns: Sequence[str], revision: str, cached: bool = False) -> Path:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(self.name, revision=revision, allow_patterns=list(patterns), local_files_only=cached)
        )

    @cached_property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size and SHA-256 (empty for small files) of every file, as the hub lists them."""
        with self._problems():
            return _listed(self.name, self.folder.name)

    @property
    def _command(self) -> str:
        """What downloads as much of it as is read, where there is a network."""
        revision = [] if self.revision == "main" else ["--revision", self.revision]
        wanted = [*(f"*.{kind}" for kind in SMALL), *self.weights]
        patterns = [word for pattern in wanted for word in ("--include", pattern)]
        patterns += [word for pattern in self.others for word in ("--exclude", pattern)]
        return shlex.join(["hf", "download", self.name, *revision, *patterns, "--local-dir", "FOLDER"])

    @property
    def _given(self) -> str:
        return f"{self.key}=[FOLDER:0.8]" if self.key == "lora" else f"{self.key}=FOLDER"

    @contextmanager
    def _problems(self) -> Iterator[None]:
        from huggingface_hub import errors, get_token

        if _from_cache_alone:
            raise BadInput(f"{self.key}={self.path}: not in the hub's cache")
        page = f"https://huggingface.co/{self.name}"
        login = "run `hf auth login`, or set HF_TOKEN"
        try:
            yield
        except errors.GatedRepoError:
            problems = [f"{self.key}={self.path}: its licence is not accepted: accept it at {page}"]
            if not get_token():
                problems.append(f"{self.key}={self.path}: you have no token of the hub: {login}")
            raise BadInput(problems) from None
        except errors.RevisionNotFoundError:
            raise BadInput(
                f"{self.key}={self.path}: {self.name} has no revision {self.revision}: see {page}/commits"
            ) from None
        except errors.RepositoryNotFoundError:
            private = "" if get_token() else f" (or a private one, and you have no token: {login})"
            raise BadInput(
                f"{self.key}={self.path}: no such folder, and no such repository on the hub{private}"
            ) from None
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HTTPError) as error:  # type: ignore[attr-defined]
            reason = str(error.__cause__ or error).splitlines()[0]
            raise BadInput(
                f"{self.key}={self.path}: no such folder; not in the hub's cache, and the hub cannot be reached "
                f"({reason}); where there is a network, run\n"
                f"  {self._command}\n"
                f"  (if {page} asks for a licence to be accepted, accept it and run `hf auth login` first)\n"
                f"and give its folder:\n"
                f"  {self._given}"
            ) from None
        except OSError as error:
            if error.errno is not None:  # of the disk
                raise
            raise BadInput(
                f"{self.key}={self.path}: what came is not what the hub has ({str(error).splitlines()[0]}); run the "
                f"same command again, or\n  {self._command}\nand give its folder:\n  {self._given}"
            ) from None


@lru_cache
def _listed(name: str, commit: str) -> dict[str, tuple[int, str]]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    tree = HfApi().list_repo_tree(name, recursive=True, revision=commit)
    return {f.path: (f.size, f.lfs.sha256 if f.lfs else "") for f in tree if isinstance(f, RepoFile)}
