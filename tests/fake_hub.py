"""A Hub on this machine: speaks enough of the real one's protocol for its own client to download from."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

PIECE = 2**20  # bytes of a file between two pauses
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Repositories by id, each a folder; ids in `gated` and ids nobody knows are refused as the real Hub does.

    served: paths of the files that were handed out.  ranges: what of each was asked for, None for all of it.
    break_after: bytes of a file after which the connection is cut, as often as `breaks` says, `break_step` bytes
        further with every cut.
    pause: seconds before an answer's first line, and before each piece of a file's content.
    knows_ranges: whether it can begin in the middle of a file.  fails: whether it answers all with its own failure.
    """

    def __init__(self, repositories: dict[str, Path], gated: tuple[str, ...] = ()) -> None:
        self.repositories = repositories
        self.gated = gated
        self.served: list[str] = []
        self.ranges: list[str | None] = []
        self.break_after: int | None = None
        self.breaks = 1
        self.break_step = 0
        self.pause = 0.0
        self.knows_ranges = True
        self.fails = False
        self.endpoint = ""

    @contextmanager
    def running(self):
        """Serve while this is open."""
        server = Server(("127.0.0.1", 0), partial(Answer, self))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def files(self, repository: str) -> dict[str, bytes]:
        """Names and contents."""
        folder = self.repositories[repository]
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    def handle_error(self, *_):
        pass


class Answer(BaseHTTPRequestHandler):
    """The answer to one request."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub, *arguments):
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        time.sleep(self.hub.pause)
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.hub.fails:
            self.refuse(500, "InternalError")
        elif parts[:2] == ["api", "models"]:
            self.describe("/".join(parts[2:4]), parts[4:])
        else:  # owner/name/resolve/revision/file
            self.hand_out("/".join(parts[:2]), "/".join(parts[4:]))

    def describe(self, repository, rest):
        if repository not in self.hub.repositories:
            self.refuse(404, "RepoNotFound")
        elif rest[:1] == ["revision"] and rest[1] not in {"main", COMMIT}:
            self.refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            files = self.hub.files(repository)
            self.say(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": digest(content)}
                    for name, content in files.items()
                ]
            )
        else:
            siblings = [
                {"rfilename": name, "size": len(content)} for name, content in self.hub.files(repository).items()
            ]
            self.say({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings})

    def hand_out(self, repository, name):
        content = self.hub.files(repository).get(name) if repository in self.hub.repositories else None
        if repository in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        if content is None:
            return self.refuse(404, "EntryNotFound")
        wanted = self.headers.get("Range") if self.hub.knows_ranges else None
        begin = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{digest(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "GET":
            self.hub.served.append(name)
            self.hub.ranges.append(wanted)
            self.send(content, begin)
        return None

    def send(self, content, begin):
        cut = self.hub.break_after
        if cut is None or len(content) <= cut or not self.hub.breaks:
            for start in range(begin, len(content), PIECE):
                time.sleep(self.hub.pause)
                self.wfile.write(content[start : start + PIECE])
            return
        self.hub.breaks -= 1
        self.hub.break_after = cut + self.hub.break_step
        self.wfile.write(content[begin:cut])
        self.close_connection = True
        self.connection.close()

    def say(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def digest(content: bytes) -> str:
    """A name for a file's content; the client only compares it."""
    return hashlib.sha256(content).hexdigest()[:40]
