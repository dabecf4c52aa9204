"""A Hub on loopback: the part of its HTTP API that creates repositories and pushes to and pulls from them.

    python tests/hub_server.py PORT [TOKEN=USER …]

Models and data sets are kept in memory. Like huggingface.co it refuses a card with malformed YAML, a name with `--`, a
large file inside a commit, a stale parent, and access of others to a private repository. It also acts as a proxy.

Tests control it at three more addresses: POST /_faults {"seed", "share", "kinds", "match", "times"} spoils answers,
POST /_plant {"repository", "path", "content" in base64, "size", "type"} adds a file that no client would send, GET
/_seen lists the requests since the start. Kinds of faults: error (500), drop (the connection ends within the answer),
slow, stale (412), corrupt (the bytes of a file do not have its hash), expired (401), open (a repository that should be
private is public), page (HTML instead of JSON). With CERTIFICATE and KEY, names of files, it serves HTTPS.
"""

import asyncio
import base64
import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import request_response

BRANCH = "main"
LARGE = 10 * 1024 * 1024  # bytes from which on a file has to go by LFS, as binary ones do
BINARY = re.compile(r".*\.(safetensors|bin|parquet|arrow|npz|pt|zip|gz|png)$")


@dataclass(frozen=True)
class Blob:
    content: bytes
    is_large: bool
    claimed: int | None = None  # a size that is not its own
    type: str = "file"  # or symlink

    @property
    def size(self) -> int:
        return len(self.content) if self.claimed is None else self.claimed

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Commit:
    files: dict[str, Blob]
    title: str
    author: str
    time: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))


@dataclass
class Repository:
    name: str  # models/me/encoder
    owner: str
    is_private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Blob], title: str, author: str) -> str:
        digest = hashlib.sha1(f"{self.name} {self.branches.get(branch)} {len(self.commits)} {title}".encode())
        for path in sorted(files):
            digest.update(f"{path} {files[path].sha256}".encode())
        self.commits[digest.hexdigest()] = Commit(files, title, author)
        self.branches[branch] = digest.hexdigest()
        return digest.hexdigest()

    def find(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **content: Any):
        self.answer = JSONResponse({"error": message, **content}, status, {"X-Error-Message": message})
        if code:
            self.answer.headers["X-Error-Code"] = code


class Hub:
    """The server. `routes` maps a pattern of method and path to a method, called with the request, body and groups."""

    def __init__(self, users: dict[str, str]):
        self.users = users  # by token
        self.repositories: dict[str, Repository] = {}  # by kind and name: models/me/encoder
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.seen: list[dict[str, Any]] = []
        self.faults: dict[str, Any] = {}
        name, rest = r"(models|datasets)/([^/]+/[^/]+)", r"([^/]+)"
        self.routes: list[tuple[re.Pattern, Callable]] = [
            (re.compile(pattern), answer)
            for pattern, answer in {
                r"GET /api/whoami-v2": self.whoami,
                r"POST /api/repos/create": self.create,
                r"DELETE /api/repos/delete": self.delete,
                r"POST /api/validate-yaml": self.validate,
                r"GET /api/models": self.list_models,
                rf"PUT /api/{name}/settings": self.settings,
                rf"POST /api/{name}/preupload/{rest}": self.preupload,
                rf"POST /api/{name}/commit/{rest}": self.commit,
                rf"GET /api/{name}(?:/revision/{rest})?": self.info,
                rf"GET /api/{name}/tree/{rest}(?:/(.+))?": self.tree,
                rf"POST /api/{name}/paths-info/{rest}": self.paths,
                rf"GET /api/{name}/refs": self.refs,
                rf"GET /api/{name}/commits/{rest}": self.commits,
                rf"POST /api/{name}/(tag|branch)/{rest}": self.name_commit,
                rf"DELETE /api/{name}/(tag|branch)/{rest}": self.unname_commit,
                r"POST /(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch": self.batch,
                r"PUT /_large/([0-9a-f]{64})": self.upload,
                r"POST /_verify": self.verify,
                rf"(?:GET|HEAD) /(datasets/)?([^/]+/[^/]+)/resolve/{rest}/(.+)": self.resolve,
                r"POST /_faults": self.set_faults,
                r"POST /_plant": self.plant,
                r"GET /_seen": self.list_seen,
            }.items()
        ]

    async def answer(self, request: Request) -> Response:
        address = request.scope["raw_path"].decode()
        path = re.sub(r"^http://[^/]+", "", address).partition("?")[0]  # a proxy gets the whole address
        body = await request.body()
        for pattern, answer in self.routes:
            if found := pattern.fullmatch(f"{request.method} {path}"):
                steers = path.startswith("/_") and not path.startswith(("/_large", "/_verify"))
                if not steers:
                    self.seen.append({"method": request.method, "path": path, "size": len(body)})
                try:
                    fault = None if steers else self.next_fault(request.method, path)
                    if fault == "error":
                        raise Refused(500, "the server has a fault")
                    if fault == "expired":
                        raise Refused(401, "the token has expired")
                    if fault == "stale" and "/commit/" in path:
                        raise Refused(412, "the parent is not the newest commit")
                    if fault == "page":
                        return Response("<html>Log in</html>", media_type="text/html")
                    if fault == "open":
                        body = body.replace(b'"private"', b'"public"')
                    groups = [None if group is None else unquote(group) for group in found.groups()]
                    return spoil(fault, answer(request, body, *groups))
                except Refused as refused:
                    return refused.answer
        return Refused(404, f"no such address: {request.method} {path}").answer

    # Who may do what

    def user_of(self, request: Request) -> str | None:
        """The user whose token the request has; None without a token. Raises `Refused` for an unknown token."""
        header = request.headers.get("authorization")
        if header is None:
            return None
        if (user := self.users.get(header.removeprefix("Bearer "))) is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return user

    def repository(self, request: Request, kind: str, name: str, write: bool = False) -> Repository:
        user, found = self.user_of(request), self.repositories.get(f"{kind}/{name}")
        if found is None or (found.is_private and user != found.owner):
            raise Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write and user != found.owner:
            raise Refused(403, "You have no right to write here")
        return found

    def at(self, repository: Repository, revision: str | None) -> tuple[str, Commit]:
        if (commit := repository.find(revision or BRANCH)) is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repository.commits[commit]

    # Repositories

    def whoami(self, request: Request, body: bytes) -> Response:
        if (user := self.user_of(request)) is None:
            raise Refused(401, "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return JSONResponse({"name": user, "type": "user", "orgs": [], "auth": access})

    def create(self, request: Request, body: bytes) -> Response:
        asked, user = json.loads(body), self.user_of(request)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        owner = asked.get("organization") or user
        if owner != user:
            raise Refused(403, f"You have no right to create a repository under {owner}")
        if "--" in asked["name"] or ".." in asked["name"]:
            raise Refused(400, f"Cannot have -- or .. in a repository's name: {asked['name']}")
        kind, name = f"{asked.get('type') or 'model'}s", f"{owner}/{asked['name']}"
        url = f"{request.base_url}{'' if kind == 'models' else kind + '/'}{name}"
        if f"{kind}/{name}" in self.repositories:
            raise Refused(409, "You already created this repository", url=url)
        made = Repository(f"{kind}/{name}", owner, asked.get("visibility") == "private")
        made.commit(BRANCH, {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial commit", user)
        self.repositories[f"{kind}/{name}"] = made
        return JSONResponse({"url": url, "name": name})

    def delete(self, request: Request, body: bytes) -> Response:
        asked = json.loads(body)
        kind, name = f"{asked.get('type') or 'model'}s", f"{asked['organization']}/{asked['name']}"
        self.repository(request, kind, name, write=True)
        del self.repositories[f"{kind}/{name}"]
        return JSONResponse({})

    def settings(self, request: Request, body: bytes, kind: str, name: str) -> Response:
        asked = json.loads(body)
        if "visibility" in asked:
            self.repository(request, kind, name, write=True).is_private = asked["visibility"] == "private"
        return JSONResponse({})

    def list_models(self, request: Request, body: bytes) -> Response:
        user = self.user_of(request)
        names = [
            key.partition("/")[2]
            for key, repository in self.repositories.items()
            if key.startswith("models/") and (not repository.is_private or repository.owner == user)
        ]
        return JSONResponse([{"id": name, "modelId": name} for name in names])

    def info(self, request: Request, body: bytes, kind: str, name: str, revision: str | None) -> Response:
        repository = self.repository(request, kind, name)
        commit, found = self.at(repository, revision)
        card = card_data(found.files["README.md"].content) if "README.md" in found.files else {}
        siblings: list[dict[str, Any]] = []
        for path, blob in found.files.items():
            siblings.append({"rfilename": path})
            if request.query_params.get("blobs"):
                siblings[-1] |= described(path, blob)
        return JSONResponse(
            {
                "id": name,
                "modelId": name,
                "author": repository.owner,
                "sha": commit,
                "private": repository.is_private,
                "lastModified": found.time,
                "siblings": siblings,
                "tags": card.get("tags") or [],
                "cardData": card,
                "model-index": card.get("model-index"),
            }
        )

    def refs(self, request: Request, body: bytes, kind: str, name: str) -> Response:
        repository = self.repository(request, kind, name)

        def listed(folder: str, names: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": commit} for n, commit in names.items()]

        return JSONResponse(
            {"branches": listed("heads", repository.branches), "tags": listed("tags", repository.tags), "converts": []}
        )

    def commits(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        repository = self.repository(request, kind, name)
        self.at(repository, revision)
        return JSONResponse(
            [
                {"id": oid, "title": c.title, "message": "", "authors": [{"user": c.author}], "date": c.time}
                for oid, c in reversed(repository.commits.items())
            ]
        )

    def name_commit(self, request: Request, body: bytes, kind: str, name: str, what: str, revision: str) -> Response:
        repository, asked = self.repository(request, kind, name, write=True), json.loads(body or b"{}")
        if what == "tag":
            names, new, revision = repository.tags, asked["tag"], revision
        else:
            names, new, revision = repository.branches, revision, asked.get("startingPoint") or BRANCH
        if new in names:
            raise Refused(409, f"Reference {new} already exists")
        names[new], _ = self.at(repository, revision)
        return JSONResponse({})

    def unname_commit(
        self, request: Request, body: bytes, kind: str, name: str, what: str, reference: str
    ) -> Response:
        repository = self.repository(request, kind, name, write=True)
        if (repository.tags if what == "tag" else repository.branches).pop(reference, None) is None:
            raise Refused(404, f"no {what} {reference}", "RevisionNotFound")
        return JSONResponse({})

    # Files in

    def validate(self, request: Request, body: bytes) -> Response:
        try:
            card_data(json.loads(body)["content"].encode())
        except yaml.YAMLError as error:
            message = str(error).splitlines()[0]
            return JSONResponse({"errors": [{"message": message}], "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    def preupload(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        repository = self.repository(request, kind, name, write=True)
        _, commit = self.at(repository, revision)
        answers = []
        for file in json.loads(body)["files"]:
            is_large = bool(BINARY.match(file["path"])) or file["size"] >= LARGE
            there = commit.files.get(file["path"])
            oid = None if there is None else there.sha256 if there.is_large else there.oid
            mode = "lfs" if is_large else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answers})

    def batch(self, request: Request, body: bytes, datasets: str | None, name: str) -> Response:
        self.repository(request, "datasets" if datasets else "models", name, write=True)
        objects = []
        for each in json.loads(body)["objects"]:
            objects.append({"oid": each["oid"], "size": each["size"]})
            if each["oid"] not in self.large:
                upload = {"href": f"{request.base_url}_large/{each['oid']}"}
                verify = {"href": f"{request.base_url}_verify"}
                objects[-1]["actions"] = {"upload": upload, "verify": verify}
        return JSONResponse({"transfer": "basic", "objects": objects})

    def upload(self, request: Request, body: bytes, sha256: str) -> Response:
        if hashlib.sha256(body).hexdigest() != sha256:
            raise Refused(400, "the content is not what its hash says")
        self.large[sha256] = body
        return Response()

    def verify(self, request: Request, body: bytes) -> Response:
        asked = json.loads(body)
        if len(self.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object")
        return Response()

    def commit(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        repository = self.repository(request, kind, name, write=True)
        newest, commit = self.at(repository, revision)
        if revision not in repository.branches:
            raise Refused(400, f"{revision} is no branch")
        files, title = dict(commit.files), ""
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, newest):
                    raise Refused(412, "the parent is not the newest commit")
            elif key == "file":
                content = base64.b64decode(value["content"])
                if len(content) >= LARGE:
                    raise Refused(400, f"{value['path']}: a file of {len(content)} bytes has to go by LFS")
                files[value["path"]] = Blob(content, False)
            elif key == "lfsFile":
                if value["oid"] not in self.large:
                    raise Refused(400, f"{value['path']}: no such object")
                files[value["path"]] = Blob(self.large[value["oid"]], True)
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: blob for path, blob in files.items() if not path.startswith(folder)}
        if "README.md" in files:
            try:
                card_data(files["README.md"].content)
            except yaml.YAMLError:
                raise Refused(400, "Invalid metadata in README.md") from None
        oid = repository.commit(revision, files, title, str(self.user_of(request)))
        return JSONResponse({"commitOid": oid, "commitUrl": f"{request.base_url}{name}/commit/{oid}"})

    # Files out

    def tree(self, request: Request, body: bytes, kind: str, name: str, revision: str, folder: str | None) -> Response:
        _, commit = self.at(self.repository(request, kind, name), revision)
        start = f"{folder}/" if folder else ""
        inside = {path: blob for path, blob in commit.files.items() if path.startswith(start)}
        if folder and not inside:
            raise Refused(404, f"no {folder}", "EntryNotFound")
        everything = request.query_params.get("recursive", "").lower() in ("1", "true")
        listed = [
            {"type": blob.type, **described(path, blob)}
            for path, blob in inside.items()
            if everything or "/" not in path.removeprefix(start)
        ]
        for parent in sorted({path.rpartition("/")[0] for path in inside if "/" in path.removeprefix(start)}):
            listed.append({"type": "directory", "path": parent, "oid": "0" * 40, "size": 0})
        return JSONResponse(listed)

    def paths(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        _, commit = self.at(self.repository(request, kind, name), revision)
        asked = parse_qs(body.decode())["paths"]
        found = [path for path in asked if path in commit.files]
        return JSONResponse([{"type": "file", **described(path, commit.files[path])} for path in found])

    def resolve(self, request: Request, body: bytes, datasets: str | None, name: str, revision: str, path: str):
        repository = self.repository(request, "datasets" if datasets else "models", name)
        oid, commit = self.at(repository, revision)
        if (blob := commit.files.get(path)) is None:
            refused = Refused(404, f"no {path}", "EntryNotFound")
            refused.answer.headers["X-Repo-Commit"] = oid
            raise refused
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.sha256 if blob.is_large else blob.oid}"'}
        if blob.is_large:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(blob.size)}
        content, status = blob.content, 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[start : end + 1], 206
        if request.method == "HEAD":
            return Response(b"", 200, {**headers, "Content-Length": str(blob.size)})
        return Response(content, status, {**headers, "Content-Type": "application/octet-stream"})

    # What tests ask for

    def set_faults(self, request: Request, body: bytes) -> Response:
        self.faults = {"share": 1.0, "match": "", "times": None, "seed": 0, **json.loads(body)}
        self.faults["draws"] = random.Random(self.faults["seed"])
        return JSONResponse({})

    def next_fault(self, method: str, path: str) -> str | None:
        faults = self.faults
        if not faults.get("kinds") or faults["times"] == 0 or not re.search(faults["match"], f"{method} {path}"):
            return None
        if faults["draws"].random() >= faults["share"]:
            return None
        if faults["times"] is not None:
            faults["times"] -= 1
        return faults["draws"].choice(faults["kinds"])

    def plant(self, request: Request, body: bytes) -> Response:
        asked = json.loads(body)
        repository = self.repositories[asked["repository"]]
        files = dict(repository.commits[repository.branches[BRANCH]].files)
        content = base64.b64decode(asked["content"])
        is_large, kind = bool(BINARY.match(asked["path"])), asked.get("type", "file")
        files[asked["path"]] = Blob(content, is_large, asked.get("size"), kind)
        return JSONResponse({"commitOid": repository.commit(BRANCH, files, "planted", "nobody")})

    def list_seen(self, request: Request, body: bytes) -> Response:
        return JSONResponse(self.seen)


def spoil(fault: str | None, answer: Response) -> Response:
    """The answer as a connection with that fault delivers it: cut off, slow, or with other bytes."""
    if fault not in ("drop", "slow", "corrupt"):
        return answer
    content = bytes(answer.body)
    if fault == "corrupt":
        if answer.media_type == "application/json" or "application/json" in answer.headers.get("content-type", ""):
            return answer
        content = bytes(255 - byte for byte in content)

    async def chunks():
        if fault == "slow":
            for start in range(0, len(content), max(1, len(content) // 10)):
                await asyncio.sleep(0.1)
                yield content[start : start + max(1, len(content) // 10)]
        else:
            yield content[: len(content) // 2] if fault == "drop" else content
            if fault == "drop":
                raise ConnectionResetError("a fault that a test asked for")

    headers = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
    return StreamingResponse(chunks(), answer.status_code, headers)


def described(path: str, blob: Blob) -> dict[str, Any]:
    found: dict[str, Any] = {"path": path, "size": blob.size, "oid": blob.oid, "blobId": blob.oid}
    if blob.is_large:
        found["lfs"] = {"oid": blob.sha256, "sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
    return found


def card_data(card: bytes) -> dict[str, Any]:
    """The YAML between the first two lines ---. Raises `YAMLError`."""
    text = card.decode()
    if not text.startswith("---\n"):
        return {}
    found = yaml.safe_load(text.split("\n---", 1)[0].removeprefix("---\n"))
    if found is not None and not isinstance(found, dict):
        raise yaml.YAMLError("the metadata are no mapping")
    return found or {}


def main(port: int, users: dict[str, str]) -> None:
    hub = Hub(users)
    application = Starlette()
    application.router.default = request_response(hub.answer)  # addresses are routed here, as they arrive
    secured = {"ssl_certfile": os.environ.get("CERTIFICATE"), "ssl_keyfile": os.environ.get("KEY")}
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="critical", **secured)
    server = uvicorn.Server(config)

    async def serve() -> None:
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        (socket,) = server.servers[0].sockets
        print(f"http://127.0.0.1:{socket.getsockname()[1]}", flush=True)
        await running

    asyncio.run(serve())


if __name__ == "__main__":
    tokens = sys.argv[2:] or ["hf_loopback=me"]
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0, dict(token.split("=") for token in tokens))
