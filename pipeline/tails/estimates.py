"""A number with its interval, or the reason why there is none."""

import math
from typing import NamedTuple

import numpy as np

from pipeline.tails.arrays import Samples

NAN = float("nan")


class Estimate(NamedTuple):
    """One estimated number with its interval and what it rests on.

    An infinite end means: not bounded by this sample. An estimate that is not identified has NaN for value, low
    and high, and the reason in `why`. Otherwise `why` says what is special about the interval, if anything.
    """

    value: float
    low: float
    high: float
    n_prompts: int
    n_samples: int
    prompts_beyond: int | None = None  # prompts with a sample strictly beyond the threshold or tail quantile
    samples_beyond: int | None = None
    n_dropped: int = 0  # prompts without a sample, or with samples on one side of the pair only
    why: str = ""

    @property
    def identified(self) -> bool:
        """Whether the data determine this number at all."""
        return not math.isnan(self.value)

    def mirrored(self) -> "Estimate":
        """Return the estimate of the negated quantity."""
        return self._replace(value=0.0 - self.value, low=0.0 - self.high, high=0.0 - self.low)


class Basis(NamedTuple):
    """What an estimate rests on: the samples (of the current side, for a change) and the prompts left out."""

    samples: Samples
    n_dropped: int

    def estimate(
        self, value: float, low: float, high: float, *, why: str = "", beyond: float | None = None
    ) -> Estimate:
        """Return an estimate; `beyond` is the threshold to count the samples above."""
        if not why and math.isinf(low) and math.isinf(high):
            return self.unidentified("this sample bounds it on neither side", beyond=beyond)
        if not why and math.isinf(low + high):
            why = f"not bounded {'above' if math.isinf(high) else 'below'} by this sample"
        if not why and low == high:
            why = "no width: the scores that determine it are all equal"
        return Estimate(float(value), float(low), float(high), *self._counts(beyond), self.n_dropped, why)

    def unidentified(self, why: str, *, beyond: float | None = None) -> Estimate:
        """Return an estimate without a number."""
        return Estimate(NAN, NAN, NAN, *self._counts(beyond), self.n_dropped, why)

    def _counts(self, beyond: float | None) -> tuple[int, int, int | None, int | None]:
        samples = self.samples
        if beyond is None or math.isnan(beyond):
            return samples.n_prompts, len(samples.values), None, None
        above = samples.values > beyond
        return samples.n_prompts, len(above), len(np.unique(samples.prompts[above])), int(above.sum())
