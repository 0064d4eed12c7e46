"""A loopback stand-in for wandb's server: it speaks to wandb's own programs, and remembers what they said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any

KEY = "0123456789abcdef" * 2 + "01234567"
PROJECT = {"id": "1", "name": "diffsweep", "entity": {"id": "2", "name": "me"}}
VIEWER = {"id": "5", "entity": "me", "username": "me", "email": "me@there", "flags": "{}", "teams": {"edges": []}}


class Server(ThreadingHTTPServer):
    """It answers all; or the beginning of a run, and 500 from then on; or 500; or nothing: it takes what comes and
    stalls."""

    def __init__(self, answers: str = "all") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.taken: list[tuple[str, bytes]] = []
        self.over = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The whole answer to a GraphQL question."""
        return {"data": self.data(query, variables)}

    def data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "mutation UpsertBucket" in query and self.answers != "500":
            bucket = {"id": "3", "name": variables["name"], "project": PROJECT}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if self.answers != "all":
            return {}
        if "query Viewer" in query or "query GetDefaultEntity" in query:
            return {"viewer": VIEWER}
        if "mutation CreateRunFiles" in query:
            files = [{"name": f, "uploadUrl": f"{self.url}/{variables['run']}/{f}"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": files}}
        if "query ArtifactType" in query:
            return {"project": None}
        if "mutation CreateArtifact " in query:
            artifact = {"id": "4", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        return {}

    def asked(self, what: str) -> list[dict[str, Any]]:
        """The variables of each GraphQL question of this name."""
        asked = [json.loads(body) for path, body in self.taken if path == "/graphql"]
        return [question["variables"] for question in asked if what in question["query"]]

    def files(self, folder: str) -> dict[str, bytes]:
        """What was uploaded below an address, by path: a run's files below its id."""
        start = f"/{folder}/"
        return {path.removeprefix(start): body for path, body in self.taken if path.startswith(start)}

    def stream(self, run_id: str) -> list[dict[str, Any]]:
        """All that came of a run's files, as it came."""
        return [json.loads(body) for path, body in self.taken if path.endswith(f"/{run_id}/file_stream")]

    def streamed(self, run_id: str, file: str) -> list[dict[str, Any]]:
        """The lines of a run's file as the server holds them: each goes to its place."""
        lines: dict[int, str] = {}
        for body in self.stream(run_id):
            sent = body.get("files", {}).get(file)
            lines |= dict(enumerate(sent["content"], start=sent["offset"])) if sent else {}
        return [json.loads(lines[i]) for i in sorted(lines)]

    def handle_error(self, *whose: Any) -> None:
        """Nobody need hear of a client that gave up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*whose)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self._body()
        if self.server.answers == "nothing":
            self.server.over.wait()
            return
        self.server.taken.append((self.path, body))
        asked = json.loads(body) if self.path == "/graphql" else None
        answer = self.server.answer(asked["query"], asked.get("variables") or {}) if asked else {}
        self._reply(200 if answer.get("data") or self.server.answers == "all" else 500, json.dumps(answer).encode())

    def do_PUT(self) -> None:
        """A file, at the address that it was given."""
        self.server.taken.append((self.path, self._body()))
        self._reply(200, b"")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


Serving = Callable[..., Server]
