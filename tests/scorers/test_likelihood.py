from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.engines.base import Adapter, Request, Sampling, ScoreRequest
from pipeline.engines.chat import encode
from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.sandbox import prompts
from pipeline.scorers.base import Sample, Score
from pipeline.scorers.likelihood import Likelihood

BOTH = ["kl", "nll_base"]


def samples_of(role: Role, n: int) -> list[Sample]:
    requests = [Request([{"role": "user", "content": row["prompt"]}], i) for i, row in enumerate(prompts("probe", n))]
    answers = role.generate(requests, Sampling(1.0, 1.0, 32))
    return [Sample(r.messages, a.text, a.token_ids) for r, a in zip(requests, answers, strict=True)]


@pytest.fixture(scope="module")
def base(sandbox_path: str) -> Role:
    # An engine of its own: adapters stay loaded on the one they were worn on.
    return Role(LocalEngine(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=16), None)


@pytest.fixture(scope="module")
def policy(base: Role, make_adapter: Callable[..., Adapter]) -> Role:
    return Role(base.engine, make_adapter(7, scale=0.05))


@pytest.fixture(scope="module")
def sampled(policy: Role) -> list[Sample]:
    return samples_of(policy, 80)


def test_round_0_is_at_no_distance_from_itself(base: Role, sampled: list[Sample]) -> None:
    assert Likelihood(["kl"], base, base)(sampled)["kl"] == [Score(0.0)] * len(sampled)


def test_every_kl_is_at_least_zero(base: Role, policy: Role, sampled: list[Sample]) -> None:
    values = [score.value for score in Likelihood(["kl"], policy, base)(sampled)["kl"]]
    assert min(values) >= 0 and max(values) > 0
    on_base_text = Likelihood(["kl"], policy, base)(samples_of(base, 10))["kl"]
    assert min(score.value for score in on_base_text) >= 0


def test_nll_base_is_the_mean_surprise_of_the_base(base: Role, policy: Role, sampled: list[Sample]) -> None:
    rows = base.score([ScoreRequest(s.prompt, s.token_ids) for s in sampled])
    found = Likelihood(BOTH, policy, base)(sampled)["nll_base"]
    assert [score.value for score in found] == pytest.approx([-np.mean(row) for row in rows], rel=1e-12)


def exact_kl(samples: list[Sample], policy: Role, base: Role, sandbox_path: str) -> list[np.ndarray]:
    """KL(policy || base) over the whole vocabulary, at every token of every response."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert policy.adapter is not None
    bare = AutoModelForCausalLM.from_pretrained(sandbox_path, dtype=torch.float32).eval()
    worn = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(sandbox_path, dtype=torch.float32), str(policy.adapter.path)
    ).eval()
    found = []
    for sample in samples:
        prompt = encode(sample.prompt, base.engine.tokenizer)
        ids = torch.tensor([[*prompt, *sample.token_ids]])
        with torch.inference_mode():
            p, q = (m(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for m in (worn, bare))
        found.append((p.exp() * (p - q)).sum(-1).numpy())
    return found


def test_kl_is_the_exact_divergence_on_average(
    base: Role, policy: Role, sampled: list[Sample], sandbox_path: str
) -> None:
    # Token by token the estimator differs from the exact value by noise of mean 0 given what came before, so the
    # sum of the differences is within a few of its own standard deviations of 0.
    exact = exact_kl(sampled, policy, base, sandbox_path)
    found = [score.value for score in Likelihood(["kl"], policy, base)(sampled)["kl"]]
    lengths = np.array([len(row) for row in exact])
    differences = np.array(found) * lengths - [row.sum() for row in exact]
    z = differences.sum() / np.sqrt((differences**2).sum())
    ratio = np.dot(found, lengths) / sum(row.sum() for row in exact)
    assert abs(z) < 3.5
    assert 0.7 < ratio < 1.4, "and it is no accident of great noise"


def test_the_terms_are_those_of_k3(base: Role, policy: Role, sampled: list[Sample]) -> None:
    requests = [ScoreRequest(s.prompt, s.token_ids) for s in sampled[:10]]
    found = Likelihood(["kl"], policy, base)(sampled[:10])["kl"]
    for score, b, p in zip(found, base.score(requests), policy.score(requests), strict=True):
        ratio = np.exp(np.array(b) - np.array(p))
        assert score.value == pytest.approx(np.mean(ratio - 1 - np.log(ratio)), rel=1e-6, abs=1e-12)


def test_a_response_without_tokens_has_no_score(base: Role, policy: Role, sampled: list[Sample]) -> None:
    given = [sampled[0], sampled[1]._replace(token_ids=[]), sampled[2]._replace(token_ids=[7] * 600)]
    for column in Likelihood(BOTH, policy, base)(given).values():
        assert column[0].value is not None
        assert [score.value for score in column[1:]] == [None, None]
        assert all(score.reason for score in column[1:])


def test_columns_are_those_asked_for(base: Role, policy: Role, sampled: list[Sample]) -> None:
    assert list(Likelihood(["nll_base"], policy, base)(sampled[:2])) == ["nll_base"]
    assert Likelihood(BOTH, policy, base).columns == {"kl": "high", "nll_base": "both"}
