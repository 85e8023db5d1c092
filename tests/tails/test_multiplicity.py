import numpy as np
import pytest
from scipy import stats

from pipeline.errors import InputError
from pipeline.tails.multiplicity import confirmation_alpha, holm, simes


def test_simes_by_hand():
    assert simes([0.04, 0.02, 0.9]) == pytest.approx(0.06)
    assert simes([0.03, 0.03, 0.03]) == pytest.approx(0.03)
    assert simes([0.2]) == 0.2


def test_simes_holds_its_level():
    rng = np.random.default_rng(0)
    for correlation in (0.0, 0.7):
        shared = rng.normal(size=(4000, 1))
        z = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.normal(size=(4000, 3))
        assert np.mean([simes(row) <= 0.05 for row in stats.norm.sf(z)]) <= 0.06


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.5]), [1.0, 1.0])


def test_the_level_is_spread_over_the_horizon():
    assert confirmation_alpha(3, 10) == pytest.approx(0.004)
    assert sum(confirmation_alpha(r, 7, level=0.05) for r in range(1, 8)) == pytest.approx(0.05)
    with pytest.raises(InputError, match="horizon"):
        confirmation_alpha(11, 10)
