"""A Hub on loopback: enough of its HTTP interface to create repositories, push to them and pull from them.

python tests/hub_server.py [PORT]
"""

import base64
import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

BRANCH = "main"


class Hub(ThreadingHTTPServer):
    """`repositories` has for each one its commits, oldest first: (id, {path: bytes})."""

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def create(self, name: str) -> bool:
        """Whether there was none of that name."""
        if name in self.repositories:
            return False
        self.repositories[name] = []
        self.commit(name, {".gitattributes": b""}, [])
        return True

    def commit(self, name: str, added: dict[str, bytes], deleted: list[str]) -> str:
        commits = self.repositories[name]
        files = dict(commits[-1][1]) if commits else {}
        files = {path: content for path, content in (files | added).items() if path not in deleted}
        digest = hashlib.sha1(f"{name} {len(commits)}".encode())
        for path in sorted(files):
            digest.update(path.encode() + files[path])
        commits.append((digest.hexdigest(), files))
        return commits[-1][0]

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(name, [])
        return next((c for c in reversed(commits) if revision in (BRANCH, c[0])), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(self.path.partition("?")[0])
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            created = self.server.create(name)
            self._json({"url": f"{self.server.address}/{name}"}, 200 if created else 409)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            files = json.loads(body)["files"]
            self._json({"files": [{**f, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in files]})
        elif (found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", path)) and found[
            1
        ] in self.server.repositories:
            lines = [json.loads(line) for line in body.splitlines()]
            added = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            deleted = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
            commit = self.server.commit(found[1], added, deleted)
            self._json({"commitUrl": f"{self.server.address}/{found[1]}/commit/{commit}", "commitOid": commit})
        else:
            self._missing("RepoNotFound")

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if (commit := self.server.at(found[1], found[2] or BRANCH)) is None:
                return self._missing("RepoNotFound")
            siblings = [{"rfilename": name} for name in commit[1]]
            return self._json(
                {"id": found[1], "modelId": found[1], "sha": commit[0], "siblings": siblings, "tags": []}
            )
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            if (commit := self.server.at(found[1], found[2])) is None:
                return self._missing("RepoNotFound")
            return self._json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in commit[1].items()
                    if name.startswith(found[3])
                ]
            )
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if (commit := self.server.at(found[1], found[2])) is None:
                return self._missing("RepoNotFound")
            if found[3] not in commit[1]:
                return self._missing("EntryNotFound", {"X-Repo-Commit": commit[0]})
            content = commit[1][found[3]]
            headers = {"X-Repo-Commit": commit[0], "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            return self._send(200, content, "application/octet-stream", headers)
        self._missing("RepoNotFound")

    do_HEAD = do_GET

    def _json(self, value, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", {})

    def _missing(self, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(404, b"", "text/plain", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments) -> None:
        return


if __name__ == "__main__":
    hub = Hub(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(hub.address, flush=True)
    hub.serve_forever()
