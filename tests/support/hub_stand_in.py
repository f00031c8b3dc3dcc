"""The Hub's calls that we make, over HTTP, with the Hub's own rules: tokens, privacy, sha256 of large files."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response

TOKEN = "hf_" + "aB3" * 10


@dataclass
class StandIn:
    """A Hub with one user, `tester`. `refuse_with` makes every write end with that status."""

    refuse_with: int = 0
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seen_tokens: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    _large: dict[str, bytes] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.middleware("http")(self._check)
        app.get("/api/whoami-v2")(lambda: {"type": "user", "name": "tester"})
        app.post("/api/repos/create")(self._create)
        app.get("/api/models/{owner}/{name}")(self._info)
        app.post("/api/validate-yaml")(lambda: {"errors": [], "warnings": []})
        app.post("/api/models/{owner}/{name}/preupload/main")(self._preupload)
        app.post("/{owner}/{name}.git/info/lfs/objects/batch")(self._batch)
        app.put("/lfs/{oid}")(self._put)
        app.post("/api/models/{owner}/{name}/commit/main")(self._commit)
        return app

    async def _check(self, request: Request, call_next: Any) -> Response:
        self.calls.append(f"{request.method} {request.url.path}")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.seen_tokens.add(token)
        if self.refuse_with:
            return Response("{}", self.refuse_with, media_type="application/json")
        if token != TOKEN and not request.url.path.startswith("/lfs/"):
            return Response('{"error": "Invalid credentials"}', 401, media_type="application/json")
        response: Response = await call_next(request)
        return response

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        repo_id = f"{body.get('organization') or 'tester'}/{body['name']}"
        answer = {"url": f"{request.base_url}{repo_id}", "id": repo_id, "name": repo_id}
        if repo_id in self.files:
            return Response(json.dumps(answer), 409, media_type="application/json")
        self.files[repo_id] = {}
        self.private[repo_id] = body.get("visibility") == "private" or body.get("private") is True
        return Response(json.dumps(answer), media_type="application/json")

    def _info(self, owner: str, name: str) -> dict[str, Any]:
        repo_id = f"{owner}/{name}"
        return {"id": repo_id, "modelId": repo_id, "sha": "0" * 40, "private": self.private[repo_id], "siblings": []}

    async def _preupload(self, request: Request) -> dict[str, Any]:
        paths = [entry["path"] for entry in (await request.json())["files"]]
        modes = [{"path": p, "uploadMode": "lfs" if p.endswith(".safetensors") else "regular"} for p in paths]
        return {"files": [mode | {"shouldIgnore": False} for mode in modes]}

    async def _batch(self, request: Request) -> Response:
        wanted = (await request.json())["objects"]
        objects = [
            one | {"actions": {"upload": {"href": f"{request.base_url}lfs/{one['oid']}", "header": {}}}}
            for one in wanted
        ]
        content = json.dumps({"transfer": "basic", "objects": objects})
        return Response(content, media_type="application/vnd.git-lfs+json")

    async def _put(self, oid: str, request: Request) -> Response:
        content = await request.body()
        if hashlib.sha256(content).hexdigest() != oid:
            return Response(status_code=422)
        self._large[oid] = content
        return Response()

    async def _commit(self, owner: str, name: str, request: Request) -> dict[str, Any]:
        files = self.files[f"{owner}/{name}"]
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self._large[entry["value"]["oid"]]
        address = f"{request.base_url}{owner}/{name}/commit/{'1' * 40}"
        return {"success": True, "commitOid": "1" * 40, "commitUrl": address, "hookOutput": ""}
