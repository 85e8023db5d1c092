from __future__ import annotations

from importlib.util import find_spec

import pytest

from pipeline.errors import InputError
from pipeline.inputs.trackers import TRACKERS, named_trackers, require_login


@pytest.mark.parametrize("given", ["none", None, [], ["none"]])
def test_none(given: str | list[str] | None) -> None:
    assert named_trackers(given) == ()


def test_each_once_in_the_order_given() -> None:
    assert named_trackers("tensorboard") == ("tensorboard",)
    assert named_trackers(["tensorboard", "none", "tensorboard"]) == ("tensorboard",)


def test_all_are_those_that_are_installed() -> None:
    assert named_trackers("all") == tuple(name for name in TRACKERS if find_spec(name))
    assert "tensorboard" in named_trackers(["all"])


def test_an_unknown_one_is_named() -> None:
    with pytest.raises(InputError, match="unknown tracker `mlflow`; there are tensorboard, wandb, trackio, all and"):
        named_trackers(["tensorboard", "mlflow"])


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [name for name in TRACKERS if not find_spec(name)]
    if not missing:
        pytest.skip("every tracker is installed here")
    with pytest.raises(InputError, match=f"{missing[0]} is not installed; `pip install {missing[0]}`"):
        named_trackers(missing[0])


def test_offline_nobody_needs_to_be_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    require_login(["wandb"])


def test_online_somebody_does(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", f"{tmp_path}/none")
    with pytest.raises(InputError, match=r"nobody is logged in; run `wandb login`\. WANDB_MODE=offline keeps"):
        require_login(["wandb"])
