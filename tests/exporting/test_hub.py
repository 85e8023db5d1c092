"""Uploading to a server on this machine that answers as the Hub does: what it was asked, and what it has then."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError, RunError
from pipeline.exporting.hub import check_hub

# The client reads where the Hub is when it is imported, so it is imported in a process of its own.
PUSH = """
import sys
from pathlib import Path
from pipeline.errors import PipelineError
from pipeline.exporting.hub import check_hub, push
folder, repo_id, public = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "public"
try:
    check_hub(repo_id, ["model", "dataset"], public=public)
    print(push(folder, repo_id, "model", public=public))
except PipelineError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class Hub(ThreadingHTTPServer):
    """Repositories by name: whether each is private, and its files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.refuses_commits = False

    def push(self, folder: Path, repo_id: str, how: str = "private", **more: str) -> subprocess.CompletedProcess[str]:
        address = f"http://127.0.0.1:{self.server_address[1]}"
        home = {"HF_HOME": str(folder.parent / "home"), "HF_TOKEN": "hf_of_the_test"}
        path = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
        environment = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1", **home, **path, **more}
        command = [sys.executable, "-c", PUSH, str(folder), repo_id, how]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


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


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "README.md").write_text("---\nlibrary_name: peft\n---\n# Model\n")
    (tmp_path / "model" / "sub" / "drift.json").write_text("{}")
    return tmp_path / "model"


def test_what_is_pushed_is_private_and_whole(hub: Hub, folder: Path) -> None:
    done = hub.push(folder, "me/it")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/me/it")
    assert hub.private == {"models/me/it": True}
    assert hub.files["models/me/it"].keys() == {"README.md", "sub/drift.json"}
    assert hub.files["models/me/it"]["README.md"] == (folder / "README.md").read_bytes()


def test_public_only_when_asked(hub: Hub, folder: Path) -> None:
    assert hub.push(folder, "me/it", "public").returncode == 0
    assert hub.private == {"models/me/it": False}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_nothing_private_goes_into_a_repository_that_is_public_already(hub: Hub, folder: Path, kind: str) -> None:
    hub.private[f"{kind}s/me/it"] = False
    done = hub.push(folder, "me/it")
    assert done.returncode == 1
    assert f"there is a public {kind} repository of this name" in done.stderr
    assert hub.files == {}


def test_a_commit_that_fails_leaves_no_file(hub: Hub, folder: Path) -> None:
    hub.refuses_commits = True
    done = hub.push(folder, "me/it")
    assert done.returncode == 1
    assert done.stderr.startswith("RunError: --push_to_hub: the model repository me/it did not take the upload (")
    assert "your storage is full" in done.stderr
    assert hub.files == {"models/me/it": {}}
    assert "hf_of_the_test" not in done.stdout + done.stderr


def test_without_a_hub_that_is_said_before_anything_is_made(hub: Hub, folder: Path) -> None:
    hub.shutdown()
    hub.server_close()
    done = hub.push(folder, "me/it")
    assert done.returncode == 1
    assert "RunError: --push_to_hub: the Hub cannot be reached (" in done.stderr
    assert "`hf upload me/it DIR --private`" in done.stderr
    done = hub.push(folder, "me/it", HF_HUB_OFFLINE="1")
    assert "offline mode is enabled" in done.stderr


def test_nobody_logged_in(hub: Hub, folder: Path) -> None:
    done = hub.push(folder, "me/it", HF_TOKEN="")
    assert done.stderr.startswith("RunError: --push_to_hub: nobody is logged in")


@pytest.mark.parametrize("name", ["no id", "it", "a/b/c", "-/x"])
def test_a_name_that_is_no_repository(name: str) -> None:
    with pytest.raises(InputError, match="--push_to_hub"):
        check_hub(name, ["model"], public=False)


def test_offline_here() -> None:
    with pytest.raises(RunError, match="nothing was uploaded"):
        check_hub("me/it", ["model"], public=False)
