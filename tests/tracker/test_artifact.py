"""The sweep's artifact, taken by a loopback stand-in for wandb's server: what arrives, from where, and how often."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wandb.sdk.artifacts._validators import validate_artifact_name

from diffsweep.report.write import Report, standalone_page, write_all
from diffsweep.store.cells import Store
from diffsweep.store.schema import to_json
from diffsweep.tracker.artifact import artifact_name
from diffsweep.tracker.run_logs import run_id
from diffsweep.tracker.wandb import Wandb
from tests.rewriting import rewrite
from tests.tracker.runs import synced
from tests.tracker.server import Server, Serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]
NAME = "guidance.scale=1,2"
PSNR = {"metric": "PSNR", "direction": "higher"}
COUNTED = ("cells", "model_loads", "model_calls", "model_rows", "padded_rows", "encodes", "rows", "sampling_seconds")


class Collections(Server):
    """A collection holds a content once, and a version is there when it is committed."""

    def __init__(self, other_type: str = "") -> None:
        super().__init__()
        self.contents: list[tuple[str, str]] = []  # collection and digest, by the artifact's number
        self.other_type = other_type  # of a collection that has the artifact's name already

    @property
    def created(self) -> list[dict[str, Any]]:
        return [asked["input"] for asked in self.asked("mutation CreateArtifact ")]

    @property
    def committed(self) -> list[int]:
        return [int(asked["artifactID"]) for asked in self.asked("mutation CommitArtifact ")]

    def version(self, number: int) -> dict[str, bytes]:
        return self.files(f"artifact/{number}")

    def data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "query ArtifactType" in query and self.other_type:
            return {"project": {"artifact": {"artifactType": {"name": self.other_type}}}}
        if "mutation CreateArtifact " in query:
            content = variables["input"]["artifactCollectionName"], variables["input"]["digest"]
            self.contents += [] if content in self.contents else [content]
            number = self.contents.index(content)
            state = "COMMITTED" if number in self.committed else "PENDING"
            sequence = {"id": "4", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": str(number), "state": state, "artifactSequence": sequence}}}
        if "mutation CreateArtifactManifest" in query:
            file = {"id": "5", "uploadUrl": f"{self.url}/manifest/{variables['artifactID']}", "uploadHeaders": []}
            return {"createArtifactManifest": {"artifactManifest": {"id": "6", "file": file}}}
        if "mutation CreateArtifactFiles" in query:
            nodes = [
                {
                    "storagePath": None,
                    "uploadUrl": f"{self.url}/artifact/{file['artifactID']}/{file['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
                for file in variables["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if "mutation CommitArtifact " in query:
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}
        return super().data(query, variables)


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Store, dict[str, Any]]:
    """Three cells, as the runner leaves them."""
    store, cells = Store(tmp_path / "outputs"), []
    for i in range(3):
        record = {
            "config": {"seed": 0, "guidance": {"scale": i + 1}, "technique": {"name": "inpaint"}},
            "metrics": {"psnr": {"value": 20.0 + i, "definition": PSNR}},
            "nfe": 30,
            "seconds": 0.5,
        }
        store.save(f"{i:020x}", {"image": np.full((4, 4, 3), i, np.uint8)}, record)
        axes = {"guidance.scale": i + 1}
        cells.append({"cell_id": f"{i:020x}", "axes": axes, "seed": 0, "status": "done", "reason": None})
    sweep = {"name": NAME, "command": "diffsweep -m guidance.scale=1,2", "created": "2026-11-24T12:00:00+00:00"}
    sweep |= {"axes": {"guidance.scale": [1, 2, 3]}, "metrics": ["psnr"], "cells": cells, "notes": [], "grid": {}}
    sweep |= {"runs": [{"started": "2026-11-24T12:00:00+00:00", **dict.fromkeys(COUNTED, 1)}]}
    folder = store.root / "sweeps" / NAME
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_bytes(to_json(sweep))
    return store, sweep


def told(store: Store, sweep: dict[str, Any], mode: str, *tags: str) -> Report:
    report = write_all(store, sweep)
    assert Wandb(mode=mode, granularity="sweep", tags=tags).log(store, sweep, report)
    return report


def expected(store: Store, sweep: dict[str, Any], report: Report) -> dict[str, bytes]:
    """The sweep's files as they lie in its folder; the page with its pictures."""
    paths = [path for path in report.folder.rglob("*") if path.is_file() and "wandb" not in path.parts]
    files = {path.relative_to(report.folder).as_posix(): path.read_bytes() for path in paths}
    assert files.keys() > {"sweep.json", "results.parquet", "results.csv", "table.md", "table.tex", "grid.png"}
    assert "figures/curve_x-guidance.scale.pdf" in files
    page = standalone_page(store, sweep, report).encode()
    picture = (store.folder("0" * 20) / "image.png").read_bytes()
    assert base64.b64encode(picture) in page
    return files | {"report.html": page}


def moved(report: Report, to: Path) -> Path:
    """What wandb has of the sweep, and nothing else, at another place."""
    shutil.copytree(report.folder / "wandb", to)
    shutil.rmtree(report.folder.parents[1])
    return to


def test_online_it_arrives_whole_and_names_no_folder_of_the_users(
    finished: tuple[Store, dict[str, Any]],
    serving: Serving,
    home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = serving(Collections())
    report = told(*finished, "online")
    assert capfd.readouterr() == ("", "")
    files = expected(*finished, report)
    assert server.committed == [0] and server.version(0) == files
    (created,) = server.created
    assert (created["artifactTypeName"], created["artifactCollectionName"]) == ("sweep", artifact_name(NAME))
    manifest = json.loads(server.files("manifest")["0"])["contents"]
    digests = {name: base64.b64encode(hashlib.md5(content).digest()).decode() for name, content in files.items()}
    assert {name: entry["digest"] for name, entry in manifest.items()} == digests
    assert not [body for _, body in server.taken if str(home.parent).encode() in body]
    assert not list(home.rglob("*wandb*/**/*.*"))


def test_offline_it_arrives_from_wherever_the_run_was_moved(
    finished: tuple[Store, dict[str, Any]],
    serving: Serving,
    home: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    report = told(*finished, "offline")
    assert capfd.readouterr() == ("", "")
    files = expected(*finished, report)
    assert not list(home.rglob("*wandb*/**/*.*"))
    folder = moved(report, tmp_path / "elsewhere")
    (run,) = folder.glob("offline-run-*")
    (log,) = run.glob("*.wandb")
    assert str(home.parent).encode() not in log.read_bytes()
    server = serving(Collections())
    synced(".", cwd=folder)
    assert server.committed == [0] and server.version(0) == files
    assert str(tmp_path).encode() not in server.files("manifest")["0"]
    copies = {path.relative_to(run / "artifact").as_posix(): path for path in run.glob("artifact/**/*.*")}
    assert copies.keys() == files.keys()
    assert {path.stat().st_mode & 0o777 for path in copies.values()} == {0o644}  # wandb's own are their owner's alone


def test_sent_from_another_folder_the_rest_arrives_and_from_there_the_artifact(
    finished: tuple[Store, dict[str, Any]], serving: Serving, tmp_path: Path
) -> None:
    """wandb finds an artifact's files from the folder around the run alone, so the README sends a user there; whoever
    was elsewhere has lost nothing."""
    folder = moved(told(*finished, "offline"), tmp_path / "elsewhere")
    server = serving(Collections())
    synced(str(folder), cwd=tmp_path)
    sent = server.files(run_id(finished[1]))
    assert any(name.startswith("media/html/report") for name in sent) and "wandb-summary.json" in sent
    for mark in folder.glob("*/*.synced"):
        mark.unlink()
    synced(".", cwd=folder)
    assert server.committed == [0]


def test_a_version_for_each_content_and_no_other(
    finished: tuple[Store, dict[str, Any]], serving: Serving, capfd: pytest.CaptureFixture[str]
) -> None:
    store, sweep = finished
    server = serving(Collections())
    told(store, sweep, "online")
    told(store, sweep, "online", "again")  # another tag: the run is told anew
    assert len(server.created) == 2 and server.committed == [0]
    told(store, sweep, "offline")
    rewrite(store, "0" * 20, metrics={"psnr": {"value": 25.0, "definition": PSNR}})
    told(store, sweep, "online")
    assert server.committed == [0, 1]
    first, second = server.version(0), server.version(1)
    assert first["sweep.json"] == second["sweep.json"]
    assert (b",20.0," in first["results.csv"], b",25.0," in second["results.csv"]) == (True, True)
    assert capfd.readouterr().err == ""


def test_what_stands_in_its_way_is_a_warning_and_the_run_is_online(
    finished: tuple[Store, dict[str, Any]], serving: Serving, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serving(Collections(other_type="model"))
    report = told(*finished, "online")
    out, err = capfd.readouterr()
    assert not out and re.fullmatch(r"warning: wandb: no artifact: .* already exists with type 'model'.*\n", err)
    assert not list(report.folder.glob("wandb/offline-run-*"))
    assert not server.created and "wandb-summary.json" in server.files(run_id(finished[1]))


@pytest.mark.parametrize("name", ["plain_1.2-a", NAME, "a/b c", "ä" * 3, "x" * 200])
def test_any_sweeps_name_is_one(name: str) -> None:
    found = artifact_name(name)
    assert validate_artifact_name(found) == found
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", found)
    assert (found == name) == (name == "plain_1.2-a")


def test_two_sweeps_are_two() -> None:
    names = ["a=1,2", "a=1-2", "a-1-2", "x" * 128, "x" * 129, "x" * 130]
    assert len({artifact_name(name) for name in names}) == len(names)
