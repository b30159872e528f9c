"""A local server that the real W&B client uploads to; it stores what it receives.

It answers only the requests with which a client starts, resumes and logs a run.
"""

import contextlib
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

KEY = "a" * 40  # an API key of the right form


@dataclass
class UploadedRun:
    """What the server knows about a run.

    Attributes
    ----------
    about : arguments with which the client created or resumed the run: group, tags, config, ...
    history : rows, keyed by line number.
    summary : the last values.
    """

    about: dict = field(default_factory=dict)
    history: dict[int, dict] = field(default_factory=dict)
    summary: dict = field(default_factory=dict)

    def column(self, name: str) -> list:
        """The values of a metric, in line order."""
        return [self.history[line].get(name) for line in sorted(self.history)]


class WandbServer(ThreadingHTTPServer):
    """A server that keeps the uploaded runs, keyed by id."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, UploadedRun] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, operation: str, variables: dict) -> dict:
        """The response to a GraphQL request."""
        if operation == "RunResumeStatus":
            return {"model": self._project() | {"bucket": self._resumed(variables["name"])}}
        if operation == "UpsertBucket":
            is_new = variables["name"] not in self.runs
            run = self.runs.setdefault(variables["name"], UploadedRun())
            run.about |= {key: value for key, value in variables.items() if value}
            bucket = {
                "id": variables["name"],
                "name": variables["name"],
                "project": self._project(),
            }
            bucket |= {"displayName": "", "config": "{}", "historyLineCount": len(run.history)}
            return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}
        if operation == "CreateRunFiles":
            files = [{"name": n, "uploadUrl": f"{self.url}/{n}"} for n in variables["files"]]
            return {"createRunFiles": {"runID": "", "uploadHeaders": [], "files": files}}
        if operation == "Viewer":
            return {"viewer": {"id": "", "entity": "me", "username": "me", "flags": "{}"}}
        return {}

    def receive(self, name: str, files: dict) -> None:
        """Store new lines of a run's files."""
        run = self.runs[name]
        if history := files.get("wandb-history.jsonl"):
            lines = enumerate(map(json.loads, history["content"]), history["offset"])
            run.history |= dict(lines)
        if summary := files.get("wandb-summary.json"):
            run.summary = json.loads(summary["content"][-1])

    def _resumed(self, name: str) -> dict | None:
        if name not in self.runs:
            return None
        run = self.runs[name]
        last = [run.history[max(run.history)]] if run.history else []
        return {
            "id": name,
            "name": name,
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "historyTail": json.dumps([json.dumps(row) for row in last]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "config": "{}",
            "tags": run.about.get("tags", []),
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _project(self) -> dict:
        return {"id": "", "name": "lossyless", "entity": {"id": "", "name": "me"}}


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        answer: dict = {}
        if self.path.endswith("/graphql"):
            request = json.loads(content)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"]).group(1)
            answer = {"data": self.server.answer(operation, request.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.receive(self.path.split("/")[-2], json.loads(content).get("files", {}))
        self._reply(answer)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def _reply(self, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server that runs inside the `with` block."""
    with WandbServer() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
