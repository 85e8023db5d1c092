"""Uploading to a server on this machine that answers as the Hub does: what it was asked, and what it has then."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub

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


def push(hub: Hub, folder: Path, repo_id: str, how: str = "private", **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), **hub.environment(folder.parent / "home"), **more}
    command = [sys.executable, "-c", PUSH, str(folder), repo_id, how]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


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
    done = push(hub, folder, "me/it")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/me/it")
    assert hub.private == {"models/me/it": True}
    assert hub.files["models/me/it"].keys() == {"README.md", "sub/drift.json"}
    assert hub.files["models/me/it"]["README.md"] == (folder / "README.md").read_bytes()


def test_public_only_when_asked(hub: Hub, folder: Path) -> None:
    assert push(hub, folder, "me/it", "public").returncode == 0
    assert hub.private == {"models/me/it": False}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_nothing_private_goes_into_a_repository_that_is_public_already(hub: Hub, folder: Path, kind: str) -> None:
    hub.private[f"{kind}s/me/it"] = False
    done = push(hub, folder, "me/it")
    assert done.returncode == 1
    assert f"there is a public {kind} repository of this name" in done.stderr
    assert hub.files == {}


def test_a_commit_that_fails_leaves_no_file(hub: Hub, folder: Path) -> None:
    hub.refuses_commits = True
    done = push(hub, folder, "me/it")
    assert done.returncode == 1
    assert done.stderr.startswith("RunError: --push_to_hub: the model repository me/it did not take the upload (")
    assert "your storage is full" in done.stderr
    assert hub.files == {"models/me/it": {}}
    assert "hf_of_the_test" not in done.stdout + done.stderr


def test_without_a_hub_that_is_said_before_anything_is_made(hub: Hub, folder: Path) -> None:
    hub.shutdown()
    hub.server_close()
    done = push(hub, folder, "me/it")
    assert done.returncode == 1
    assert "RunError: --push_to_hub: the Hub cannot be reached (" in done.stderr
    assert "`hf upload me/it DIR --private`" in done.stderr
    done = push(hub, folder, "me/it", HF_HUB_OFFLINE="1")
    assert "offline mode is enabled" in done.stderr


def test_nobody_logged_in(hub: Hub, folder: Path) -> None:
    done = push(hub, folder, "me/it", HF_TOKEN="")
    assert done.stderr.startswith("RunError: --push_to_hub: nobody is logged in")


@pytest.mark.parametrize("name", ["no id", "it", "a/b/c", "-/x"])
def test_a_name_that_is_no_repository(name: str) -> None:
    with pytest.raises(InputError, match="--push_to_hub"):
        check_hub(name, ["model"], public=False)


def test_offline_here() -> None:
    with pytest.raises(RunError, match="nothing was uploaded"):
        check_hub("me/it", ["model"], public=False)
