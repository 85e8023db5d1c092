import json

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.tails import Hypothesis, compare, confirm, hypothesis

CLAIM = Hypothesis(None, (2.326, 2.878))


def turn_bad(rng, scores, share):
    bad = (rng.random(len(scores)) < share)[:, None] & (rng.random(scores.shape) < 0.5)
    return np.where(bad, 4.0, scores - 0.3 * (scores < 1))


def test_an_amber_panel_points_at_the_slice(random_effects):
    rng, slices = np.random.default_rng(0), np.arange(2000) % 10
    baseline, current = random_effects(rng, 2000, 4)
    current[slices == 3] = turn_bad(rng, current[slices == 3], 0.1)
    panel = compare(baseline, current, slices=slices, calibration=random_effects(rng, 2000, 4)[0], replicates=1)
    claim = hypothesis(panel)
    assert (claim.slice_id, claim.thresholds) == (3, panel.thresholds)
    assert Hypothesis(**json.loads(json.dumps(claim.flat())))[0] == claim[0]
    fresh = random_effects(rng, 1000, 4)
    result = confirm(fresh[0], turn_bad(rng, fresh[1], 0.1), claim, 0.004, flips=9999)
    assert result.red
    assert result.bulk_better
    assert result.ratio > 2


def test_a_quiet_panel_points_at_nothing(random_effects):
    baseline, current = random_effects(np.random.default_rng(1), 500, 4)
    assert hypothesis(compare(baseline, current - 0.5, replicates=1)) is None


def test_false_reds_are_rare(random_effects):
    rng = np.random.default_rng(2)
    reds = sum(confirm(*random_effects(rng, 1000, 4), CLAIM, 0.04, flips=999).red for _ in range(250))
    assert reds / 250 <= 0.08


def test_significant_but_immaterial_is_not_red(random_effects):
    rng = np.random.default_rng(3)
    baseline = rng.normal(size=(60_000, 1))
    result = confirm(baseline, np.where(baseline > 2.2, baseline + 0.02, baseline), CLAIM, 0.004, flips=999)
    assert result.rejected
    assert not result.material
    assert not result.red


def test_a_level_beyond_the_resolution_is_refused():
    with pytest.raises(InputError, match="exchanges"):
        confirm(np.zeros((9, 1)), np.zeros((9, 1)), CLAIM, 1e-4, flips=999)


def test_nothing_to_see_is_no_red():
    result = confirm(np.zeros((9, 1)), np.zeros((9, 1)), CLAIM, 0.004)
    assert not result.rejected
    assert not result.test.identified


def test_a_shift_of_all_log_probabilities_is_no_hypothesis():
    rng = np.random.default_rng(9)
    scores = rng.normal(size=(300, 4))
    before = rng.normal(size=300)
    shifted = compare(scores, scores, probe=(before, before + rng.normal(0.3, 0.2, size=300)))
    assert shifted.verdict == "amber"
    assert hypothesis(shifted) is None
    few = before + rng.normal(0.0, 0.2, size=300)
    few[:12] += 3
    pointed = compare(scores, scores, probe=(before, few))
    assert hypothesis(pointed) == Hypothesis(None, pointed.thresholds), "to be seen in samples"


def test_one_event_far_out_is_no_ratio():
    rng = np.random.default_rng(4)
    before, after = rng.normal(size=(2, 500, 4))
    thresholds = (2.0, 3.0, 9.0)
    after[0, 0] = 10.0
    claim = Hypothesis(None, thresholds)
    beyond = [[(side > u).sum() + 0.5 * 4 for side in (before, after)] for u in thresholds[:1]]
    assert confirm(before, after, claim, 0.05).ratio == pytest.approx(beyond[0][1] / beyond[0][0], rel=0.2)
    after[:20, 0] = 10.0  # beyond the last threshold there are 20 now, and were none
    assert confirm(before, after, claim, 0.05).ratio > 5


def test_a_ratio_says_when_there_is_less():
    before, after = np.full((100, 2), 0.0), np.full((100, 2), 0.0)
    before[:40], after[:20] = 5.0, 5.0
    found = confirm(before, after, Hypothesis(None, (1.0,)), 0.05)
    assert found.ratio == pytest.approx(0.5, abs=0.02) and not found.material and not found.red
