from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from pipeline.errors import InputError
from pipeline.inputs.model import follows_main, identify, is_other_model, pinned, resolve_model, split_revision


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("org/m", ("org/m", None)),
        ("org/m@main", ("org/m", "main")),
        ("org/m@refs/pr/1", ("org/m", "refs/pr/1")),
        ("m@0a1b2c", ("m", "0a1b2c")),
    ],
)
def test_a_revision_follows_the_id(name: str, parts: tuple[str, str | None]) -> None:
    assert split_revision(name, "critic") == parts


@pytest.mark.parametrize("name", ["org/m@", "@main", "@"])
def test_an_empty_part_is_refused_with_where_it_is(name: str) -> None:
    with pytest.raises(InputError, match=f"^critic: `{name}` is incomplete; write `MODEL@REVISION`"):
        split_revision(name, "critic")


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    folder = tmp_path / "model@home"
    folder.mkdir()
    assert split_revision(str(folder), "judge") == (str(folder), None)
    with pytest.raises(InputError, match=r"judge: .* a folder has no revisions"):
        split_revision(f"{folder}@main", "judge")


def test_what_identifies_a_critic(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = identify(str(tmp_path), "critic")
    (tmp_path / "config.json").write_text("[]")
    assert identify(str(tmp_path), "critic") != before, "the bytes of a folder"
    assert identify("org/m", "critic") == "org/m@main"
    assert identify("org/m@abc", "critic") == "org/m@abc"
    for name in ("policy", "base", "https://host/v1#org/m@abc"):
        assert identify(name, "critic") == name and not is_other_model(name)


def test_only_an_unpinned_id_of_the_hub_may_change(tmp_path: Path) -> None:
    assert follows_main("org/m", None)
    assert not follows_main("org/m", "abc")
    assert not follows_main(str(tmp_path), None)
    assert not follows_main("sandbox", None)
    assert resolve_model("sandbox") == resolve_model(resolve_model("sandbox"))


def test_a_branch_is_the_commit_that_the_launch_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the Hub client's own cache, which serves it offline."""
    repository = tmp_path / "models--org--moves"
    for commit in ("a" * 40, "b" * 40):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
    main = repository / "refs" / "main"
    main.parent.mkdir()
    main.write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    pinned.cache_clear()
    assert pinned("org/moves", None) == pinned("org/moves", "main") == "a" * 40
    main.write_text("b" * 40)
    assert identify("org/moves", "critic") == f"org/moves@{'a' * 40}", "models are loaded again in every round"
    pinned.cache_clear()  # the next launch
    assert identify("org/moves", "critic") == f"org/moves@{'b' * 40}"
    assert pinned("org/moves", "a" * 40) == "a" * 40
    assert pinned("org/absent", "v1") == "v1" and pinned(str(tmp_path), None) is None
