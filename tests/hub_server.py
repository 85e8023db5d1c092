"""A server on this machine that answers as the Hub does, for as much as an upload asks of it."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Hub(ThreadingHTTPServer):
    """Repositories by name: whether each is private, and its files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.refuses_commits = False

    def environment(self, home: Path) -> dict[str, str]:
        """For a process that shall take this server for the Hub."""
        address = f"http://127.0.0.1:{self.server_address[1]}"
        return {
            "HF_ENDPOINT": address,
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_of_the_test",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["api", "whoami-v2"]:
            self._say({"name": "me", "type": "user", "orgs": []})
        elif "/".join(parts[1:4]) in self.server.private:
            name = "/".join(parts[1:4])
            self._say({"id": "/".join(parts[2:4]), "private": self.server.private[name], "siblings": []})
        else:
            self._say({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[1:4])
        if parts[1:] == ["repos", "create"]:
            asked = json.loads(body)
            made = f"{asked.get('type') or 'model'}s/{asked.get('organization') or 'me'}/{asked['name']}"
            private = asked.get("private", asked.get("visibility") == "private")  # older and newer clients
            self.server.private.setdefault(made, private)
            self.server.files.setdefault(made, {})
            self._say({"url": f"http://{self.headers['Host']}/me/{asked['name']}"})
        elif parts[-2] == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            self._say({"files": [f | {"shouldIgnore": False, "oid": None} for f in files]})
        elif parts[-2] == "commit" and self.server.refuses_commits:
            self._say({}, 403, {"X-Error-Message": "your storage is full"})
        elif parts[-2] == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            for line in lines:
                if line["key"] == "file":
                    self.server.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{'ab' * 20}"
            self._say({"success": True, "commitOid": "ab" * 20, "commitUrl": url})
        else:
            self._say({"warnings": [], "errors": []})

    def _say(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for key, content in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
