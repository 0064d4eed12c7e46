"""The sweep's artifact, taken by a loopback stand-in for wandb's server: what arrives, from where, and how often."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import wandb
from wandb.sdk.artifacts._validators import validate_artifact_name

from diffsweep.report.write import Report, whole_page, write_all
from diffsweep.sweep.store import Store, to_json
from diffsweep.tracker.artifact import artifact_name
from diffsweep.tracker.wandb import Wandb

KEY = "0123456789abcdef" * 2 + "01234567"
NAME = "guidance.scale=1,2"
PSNR = {"metric": "PSNR", "direction": "higher"}
COUNTED = ("cells", "model_loads", "model_calls", "model_rows", "padded_rows", "encodes", "rows", "sampling_seconds")


class Server(ThreadingHTTPServer):
    """As wandb's: a collection holds a content once, and a version is there when it is committed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.digests: list[tuple[str, str]] = []  # collection and digest, by the artifact's number
        self.committed: list[int] = []
        self.files: dict[str, bytes] = {}  # what was uploaded, by path
        self.other_type = ""  # of a collection that has the artifact's name already

    @property
    def created(self) -> list[dict[str, Any]]:
        return [variables["input"] for name, variables in self.asked if name == "CreateArtifact"]

    def version(self, number: int) -> dict[str, bytes]:
        start = f"/artifact/{number}/"
        return {path.removeprefix(start): body for path, body in self.files.items() if path.startswith(start)}

    def answer(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((name, asked))
        place = f"http://127.0.0.1:{self.server_port}"
        if name == "Viewer":
            return {"viewer": {"id": "2", "username": "me", "entity": "me", "email": "me@example.org", "flags": "{}"}}
        if name == "ArtifactType":
            artifact = {"artifactType": {"name": self.other_type}} if self.other_type else None
            return {"project": {"artifact": artifact}}
        if name == "UpsertBucket":
            project = {"id": "1", "name": "diffsweep", "entity": {"id": "2", "name": "me"}}
            return {"upsertBucket": {"bucket": {"id": "3", "name": asked["name"], "project": project}}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{place}/run/{file}"} for file in asked["files"]]
            return {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            content = asked["input"]["artifactCollectionName"], asked["input"]["digest"]
            self.digests += [] if content in self.digests else [content]
            number = self.digests.index(content)
            state = "COMMITTED" if number in self.committed else "PENDING"
            sequence = {"id": "4", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": str(number), "state": state, "artifactSequence": sequence}}}
        if name == "CreateArtifactManifest":
            file = {"id": "5", "uploadUrl": f"{place}/manifest/{asked['artifactID']}", "uploadHeaders": []}
            return {"createArtifactManifest": {"artifactManifest": {"id": "6", "file": file}}}
        if name == "CreateArtifactFiles":
            nodes = [
                {
                    "storagePath": None,
                    "uploadUrl": f"{place}/artifact/{file['artifactID']}/{file['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
                for file in asked["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if name == "CommitArtifact":
            self.committed.append(int(asked["artifactID"]))
            return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": ""}}}
        return {}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
        name = re.search(r"(?:mutation|query) (\w+)", asked["query"])
        answer = json.dumps({"data": self.server.answer(name[1] if name else "", asked.get("variables") or {})})
        self.reply(answer.encode())

    def do_PUT(self) -> None:
        self.server.files[self.path] = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.reply(b"")

    def reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, which is the current folder too; no settings, no key."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_", "NETRC"))]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    yield tmp_path / "home"
    wandb.teardown()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Server]]:
    started: list[Server] = []

    def start() -> Server:
        server = Server()
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        started.append(server)
        return server

    yield start
    wandb.teardown()
    for server in started:
        server.shutdown()
        server.server_close()


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
    page = whole_page(store, sweep, report).encode()
    picture = (store.folder("0" * 20) / "image.png").read_bytes()
    assert base64.b64encode(picture) in page
    return files | {"report.html": page}


def synced(*words: str, cwd: Path) -> None:
    command = [sys.executable, "-m", "wandb", "sync", *words]
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


def moved(report: Report, to: Path) -> Path:
    """What wandb has of the sweep, and nothing else, at another place."""
    shutil.copytree(report.folder / "wandb", to)
    shutil.rmtree(report.folder.parents[1])
    return to


def test_online_it_arrives_whole_and_names_no_folder_of_the_users(
    finished: tuple[Store, dict[str, Any]],
    serving: Callable[[], Server],
    home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = serving()
    report = told(*finished, "online")
    assert capfd.readouterr() == ("", "")
    files = expected(*finished, report)
    assert server.committed == [0] and server.version(0) == files
    (created,) = server.created
    assert (created["artifactTypeName"], created["artifactCollectionName"]) == ("sweep", "guidance.scale-1-2")
    manifest = json.loads(server.files["/manifest/0"])["contents"]
    digests = {name: base64.b64encode(hashlib.md5(content).digest()).decode() for name, content in files.items()}
    assert {name: entry["digest"] for name, entry in manifest.items()} == digests
    sent = [*server.files.values(), json.dumps(server.asked).encode()]
    assert not [body for body in sent if str(home.parent).encode() in body]
    assert not list(home.rglob("*wandb*/**/*.*"))


def test_offline_it_arrives_from_wherever_the_run_was_moved(
    finished: tuple[Store, dict[str, Any]],
    serving: Callable[[], Server],
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
    server = serving()
    synced(".", cwd=folder)
    assert server.committed == [0] and server.version(0) == files
    assert str(tmp_path).encode() not in server.files["/manifest/0"]
    assert {path.relative_to(run / "artifact").as_posix() for path in run.glob("artifact/**/*.*")} == files.keys()


def test_sent_from_another_folder_the_run_arrives_without_it(
    finished: tuple[Store, dict[str, Any]], serving: Callable[[], Server], tmp_path: Path
) -> None:
    """wandb's own limit, which the README tells of: should it cease, nothing needs to be told any more."""
    folder = moved(told(*finished, "offline"), tmp_path / "elsewhere")
    server = serving()
    synced(str(folder), cwd=tmp_path)
    assert server.created and not server.committed
    assert any(path.startswith("/run/media/html/report") for path in server.files)
    assert "/run/wandb-summary.json" in server.files
    for mark in folder.glob("*/*.synced"):
        mark.unlink()
    synced(".", cwd=folder)
    assert server.committed == [0]


def test_a_version_for_each_content_and_no_other(
    finished: tuple[Store, dict[str, Any]], serving: Callable[[], Server], capfd: pytest.CaptureFixture[str]
) -> None:
    store, sweep = finished
    server = serving()
    told(store, sweep, "online")
    told(store, sweep, "online", "again")  # another tag: the run is told anew
    assert len(server.created) == 2 and server.committed == [0]
    told(store, sweep, "offline")
    store.amend("0" * 20, {"metrics": {"psnr": {"value": 25.0, "definition": PSNR}}})
    told(store, sweep, "online")
    assert server.committed == [0, 1]
    first, second = server.version(0), server.version(1)
    assert first["sweep.json"] == second["sweep.json"]
    assert (b",20.0," in first["results.csv"], b",25.0," in second["results.csv"]) == (True, True)
    assert capfd.readouterr().err == ""


def test_what_stands_in_its_way_is_a_warning_and_the_run_is_online(
    finished: tuple[Store, dict[str, Any]], serving: Callable[[], Server], capfd: pytest.CaptureFixture[str]
) -> None:
    server = serving()
    server.other_type = "model"
    report = told(*finished, "online")
    out, err = capfd.readouterr()
    assert not out and re.fullmatch(r"warning: wandb: no artifact: .* already exists with type 'model'.*\n", err)
    assert not list(report.folder.glob("wandb/offline-run-*"))
    assert not server.created and "/run/wandb-summary.json" in server.files


@pytest.mark.parametrize("name", ["plain_1.2-a", NAME, "a/b c", "ä" * 3, "x" * 200])
def test_any_sweeps_name_is_one(name: str) -> None:
    found = artifact_name(name)
    assert validate_artifact_name(found) == found
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", found)
    assert found == name or name not in ("plain_1.2-a",)
