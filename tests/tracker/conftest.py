"""An empty home, a sweep, and wandb's server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import wandb

from tests.tracker.runs import Finished, away, swept
from tests.tracker.server import KEY, Server, Serving


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    away(monkeypatch, tmp_path / "home")
    yield tmp_path / "home"
    wandb.teardown()


@pytest.fixture
def offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    return swept(tmp_path)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Starts a server, or one that answers like this, for wandb to find. It is sent to each second instead of each 15:
    wandb takes whole seconds here."""
    started: list[Server] = []

    def start(server: Server | str = "all") -> Server:
        server = Server(server) if isinstance(server, str) else server
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "1")
        started.append(server)
        return server

    yield start
    wandb.teardown()
    for server in started:
        server.over.set()
        server.shutdown()
        server.server_close()
