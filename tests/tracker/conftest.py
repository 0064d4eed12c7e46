"""An empty home, a sweep, and wandb's server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
import wandb

from tests.tracker.runs import Finished, away, swept
from tests.tracker.server import KEY, Server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    away(monkeypatch, tmp_path / "home")
    yield tmp_path / "home"
    wandb.teardown()


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    return swept(tmp_path)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(answers: str = "all") -> Server:
        server = Server(answers)
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        started.append(server)
        return server

    yield start
    wandb.teardown()
    for server in started:
        server.over.set()
        server.shutdown()
        server.server_close()
