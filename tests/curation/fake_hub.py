"""The part of the Hugging Face Hub's API that a push uses, on loopback: repositories in memory, files by their SHA-256."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class FakeHub:
    """url: HF_ENDPOINT. files: path → content, of the one repository. objects: what was uploaded, by SHA-256. commits: the paths
    of each. most: commits that go well; after these the server answers 409. token: that is asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    private: bool | None = None
    most: int = 10**9
    token: str = "hf_secret"
    asked: list[str] = field(default_factory=list)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A server for the block."""
    hub = FakeHub("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            hub.asked.append(f"{self.command} {path}")
            if path.startswith("/objects/"):  # The address of an upload carries its permission.
                hub.objects[path.rpartition("/")[2]] = body
                return self.answer({})
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.answer({"error": "Invalid username or password."}, 401)
            return self.api(path, body)

        do_GET = do_POST = do_PUT = do_HEAD = handle_any

        def api(self, path: str, body: bytes) -> None:
            if path == "/api/repos/create":
                told = json.loads(body)
                hub.private = told.get("private", told.get("visibility") == "private")
                return self.answer({"url": f"{hub.url}/datasets/me/clips", "id": "me/clips", "name": "me/clips"})
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if "/tree/" in path:
                return self.answer([_entry(name, content) for name, content in sorted(hub.files.items())])
            if "/preupload/" in path:
                files = json.loads(body)["files"]
                return self.answer({"files": [_mode(one["path"]) for one in files]})
            if path.endswith("/info/lfs/objects/batch"):
                return self.answer(
                    {"transfer": "basic", "objects": [self.upload(o) for o in json.loads(body)["objects"]]}
                )
            if "/commit/" in path:
                return self.commit([json.loads(line) for line in body.splitlines() if line.strip()])
            if path.startswith("/api/datasets/"):
                return self.answer({"id": "me/clips", "sha": "0" * 40, "private": True, "siblings": []})
            return self.answer({"error": path}, 404)

        def upload(self, told: dict[str, Any]) -> dict[str, Any]:
            found = {"oid": told["oid"], "size": told["size"]}
            if told["oid"] in hub.objects:
                return found
            return found | {"actions": {"upload": {"href": f"{hub.url}/objects/{told['oid']}", "header": {}}}}

        def commit(self, lines: list[dict[str, Any]]) -> None:
            if len(hub.commits) >= hub.most:
                return self.answer({"error": "a bad day"}, 409)
            paths = []
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del hub.files[value["path"]]
                if line["key"] != "header":
                    paths.append(value["path"])
            hub.commits.append(paths)
            return self.answer(
                {
                    "success": True,
                    "commitOid": f"{len(hub.commits):040x}",
                    "commitUrl": f"{hub.url}/datasets/me/clips/commit/{len(hub.commits):040x}",
                }
            )

        def answer(self, told: Any, status: int = 200) -> None:
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *told: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _mode(path: str) -> dict[str, Any]:
    large = path.endswith((".mp4", ".parquet"))
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if path.endswith((".mp4", ".parquet")):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return entry
