"""A small server that speaks the Hub's protocol, faults included; the real client is pointed at it.

Large files are served from a "CDN" path after a redirect, as the Hub does. Every body byte sent is counted.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

RESOLVE = re.compile(r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
API = re.compile(r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/?]+))?")
TREE = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)/(?:tree|paths-info)/(?P<revision>[^/]+)(/(?P<under>.*))?")
LARGE = 4096  # served through the redirect


@dataclass
class Repo:
    """Files of one repository; `faults` names what goes wrong, and how often where that is a number.

    `commits` holds the files of commits that differ from the rest; `pause` is the wait before a long range, in seconds.
    """

    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": "a" * 40})
    gated: bool = False
    faults: Counter[str] = field(default_factory=Counter)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    pause: float = 0.0

    def take(self, fault: str) -> bool:
        """Whether the fault strikes now; it is used up by that."""
        if self.faults[fault] <= 0:
            return False
        self.faults[fault] -= 1
        return True


class LoopbackHub:
    """The server; `repos` may be changed at any time."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.sent = 0
        self.paths: list[str] = []
        self.ranges: Counter[tuple[int, int]] = Counter()  # first and last byte, as asked for
        self.tokens: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                hub.answer(self, body=True)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, name: str, folder: Path | None = None, **options: object) -> Repo:
        """Serve a folder's files as a repository, and start counting anew."""
        files = {} if folder is None else {p.name: p.read_bytes() for p in folder.iterdir()}
        self.repos[name] = Repo(files, **options)  # type: ignore[arg-type]
        self.sent = 0
        self.paths.clear()
        self.ranges.clear()
        return self.repos[name]

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        self.paths.append(request.path)
        if token := request.headers.get("Authorization"):
            self.tokens.add(token)
        path, cdn = unquote(request.path.split("?")[0]), False
        if path.startswith("/cdn/"):
            path, cdn = path.removeprefix("/cdn"), True
        if match := API.fullmatch(path):
            self._info(request, match["repo"], match["revision"] or "main")
        elif match := TREE.fullmatch(path):
            self._tree(request, match["repo"], match["revision"])
        elif match := RESOLVE.fullmatch(path):
            self._file(request, match["repo"], match["revision"], match["name"], body, cdn)
        else:
            self._error(request, 404, "EntryNotFound")

    def _known(self, request: BaseHTTPRequestHandler, name: str, revision: str) -> tuple[Repo, str] | None:
        repo = self.repos.get(name)
        if repo is None:
            self._error(request, 401, "RepoNotFound")
            return None
        commit = repo.revisions.get(revision, revision)
        if commit not in repo.revisions.values():
            self._error(request, 404, "RevisionNotFound")
            return None
        return repo, commit

    def _info(self, request: BaseHTTPRequestHandler, name: str, revision: str) -> None:
        if (known := self._known(request, name, revision)) is None:
            return
        repo, commit = known
        listing = {
            "id": name,
            "sha": commit,
            "siblings": [{"rfilename": f} for f in repo.commits.get(commit, repo.files)],
            "gated": repo.gated,
        }
        self._send(request, 200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _tree(self, request: BaseHTTPRequestHandler, name: str, revision: str) -> None:
        if (known := self._known(request, name, revision)) is None:
            return
        repo, commit = known
        files = repo.commits.get(commit, repo.files)
        listing = [
            {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for file, data in files.items()
        ]
        self._send(request, 200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _file(
        self, request: BaseHTTPRequestHandler, name: str, revision: str, file: str, body: bool, cdn: bool
    ) -> None:
        if (known := self._known(request, name, revision)) is None:
            return
        repo, commit = known
        if repo.gated and "Authorization" not in request.headers and not cdn:
            self._error(request, 403, "GatedRepo")
            return
        files = repo.commits.get(commit, repo.files)
        if file not in files:
            self._error(request, 404, "EntryNotFound")
            return
        content = files[file]
        digest = hashlib.sha256(content).hexdigest()
        facts = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if len(content) > LARGE and not cdn:
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
            where = f"{self.url}/cdn/{name}/resolve/{revision}/{file}"
            self._send(request, 302, b"", {**facts, **linked, "Location": where})
            return
        if not body:
            self._send(request, 200, b"", {**facts, "Content-Length": str(len(content))})
            return
        for status in (429, 503):
            if repo.take(f"status {status}"):
                self._error(request, status, "")
                return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if wanted is None or repo.faults["ignore range"]:
            self._send(request, 200, content, facts)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        self.ranges[first, last] += 1
        if last - first > LARGE:
            time.sleep(repo.pause)
        part = content[first : last + 1]
        if repo.take("wrong length"):
            part = part[:-1]
        headers = {**facts, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        if repo.take("cut"):
            self._send(request, 206, part, headers, cut=True)
            return
        if repo.take("wrong place"):
            headers["Content-Range"] = f"bytes {first + 1}-{last + 1}/{len(content)}"
        self._send(request, 206, part, headers)

    def _error(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        self._send(request, status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str], cut: bool = False
    ) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if cut:
            data = data[: len(data) // 2]
            request.close_connection = True
        if request.command != "HEAD":
            request.wfile.write(data)
            self.sent += len(data)
