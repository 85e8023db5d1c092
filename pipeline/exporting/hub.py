"""Uploading an export to the Hub: private unless asked otherwise, each repository in one commit or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from pipeline.errors import InputError, RunError, first_line

Kind = Literal["model", "dataset"]


def check_hub(repo_id: str, kinds: list[Kind], *, public: bool) -> None:
    """Check, before anything is written, that the Hub answers, knows the user, and keeps private what should be.

    Raises:
        InputError: the id is not valid, or a repository of that name exists and is public, without ``public``.
        RunError: nobody is logged in, or the Hub cannot be reached.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"--push_to_hub {repo_id}: {error}") from error
    if repo_id.count("/") != 1:
        raise InputError(f"--push_to_hub {repo_id}: give USER/NAME or ORGANISATION/NAME.")
    api = HfApi()
    try:
        api.whoami()
        there = [kind for kind in kinds if _is_public(api, repo_id, kind)]
    except LocalTokenNotFoundError as error:
        raise RunError(
            "--push_to_hub: nobody is logged in to the Hub, so nothing was uploaded; run `hf auth login` first."
        ) from error
    except _failures() as error:
        raise RunError(
            f"--push_to_hub: the Hub cannot be reached ({first_line(error)}), so nothing was uploaded. Export to a "
            f"folder with --to DIR, and upload that later with `hf upload {repo_id} DIR --private`."
        ) from error
    if there and not public:
        raise InputError(
            f"--push_to_hub {repo_id}: there is a public {there[0]} repository of this name, and anyone can read what "
            "is pushed there; nothing was uploaded. Give another name, or --public if that is what you want."
        )


def push(folder: Path, repo_id: str, kind: Kind, *, public: bool) -> str:
    """Upload a folder as one commit; return its address.

    Raises:
        RunError: the Hub refused, or the connection was lost; the repository then holds nothing of this folder.
    """
    api = HfApi()
    try:
        api.create_repo(repo_id, repo_type=kind, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, repo_type=kind, folder_path=folder, commit_message="Exported round"
        )
    except _failures() as error:
        raise RunError(
            f"--push_to_hub: the {kind} repository {repo_id} did not take the upload ({first_line(error)}); it was a "
            "single commit, so no part of it is there. Run the same command again."
        ) from error
    return str(commit.repo_url)


def _is_public(api: HfApi, repo_id: str, kind: Kind) -> bool:
    try:
        return not api.repo_info(repo_id, repo_type=kind).private
    except RepositoryNotFoundError:
        return False


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises: its own errors, and those of the HTTP library under it, which it replaced once."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)))
