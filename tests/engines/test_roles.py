from __future__ import annotations

import pytest

from pipeline.engines.roles import Roles
from pipeline.errors import EngineError


@pytest.fixture
def roles(sandbox_path: str) -> Roles:
    return Roles(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=4)


def test_a_critic_that_is_the_base_under_its_own_name_is_opened_once(roles: Roles) -> None:
    assert roles.named("sandbox", None).engine is roles.named("base", None).engine is roles.policy(None).engine


def test_a_model_of_the_hub_is_asked_for_at_its_revision(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EngineError, match=r"^org/absent: cannot be loaded"):
        roles.named("org/absent@abc", None)
