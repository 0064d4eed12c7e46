"""A loopback stand-in for wandb's server: it speaks to wandb's own programs, and remembers what they said."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any

KEY = "0123456789abcdef" * 2 + "01234567"
PROJECT = {"id": "1", "name": "diffsweep", "entity": {"id": "2", "name": "me"}}


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

    def data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The answer to a GraphQL question."""
        if "mutation UpsertBucket" in query and self.answers != "500":
            bucket = {"id": "3", "name": variables["name"], "project": PROJECT}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "mutation CreateRunFiles" in query and self.answers == "all":
            return {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": []}}
        if "query Viewer" in query and self.answers == "all":
            return {"viewer": {"id": "2", "entity": "me"}}
        if "query ArtifactType" in query and self.answers == "all":
            return {"project": None}
        if "mutation CreateArtifact " in query and self.answers == "all":
            artifact = {"id": "4", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        return {}

    def asked(self, what: str) -> list[dict[str, Any]]:
        """The variables of each GraphQL question of this name."""
        asked = [json.loads(body) for path, body in self.taken if path == "/graphql"]
        return [question["variables"] for question in asked if what in question["query"]]

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


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self._body()
        if self.server.answers == "nothing":
            self.server.over.wait()
            return
        if self.path == "/graphql" or self.path.startswith("/files/"):
            self.server.taken.append((self.path, body))
        else:
            self.server.taken.append((self.path, b"{}"))
        asked = json.loads(body) if self.path == "/graphql" else None
        data = self.server.data(asked["query"], asked.get("variables") or {}) if asked else {}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200 if data or self.server.answers == "all" else 500)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_PUT(self) -> None:
        """A file, at the address that it was given."""
        self.server.taken.append((self.path, self._body()))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, *_: Any) -> None: ...
