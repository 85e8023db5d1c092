"""Statistics of drift in the bulk and at the tails: numbers in, numbers with intervals out."""

from pipeline.tails.clustering import tail_icc
from pipeline.tails.estimates import Estimate
from pipeline.tails.exchange import SwapTest
from pipeline.tails.quantiles import frozen_threshold
from pipeline.tails.quantities import QUANTITIES, change, estimate
from pipeline.tails.swap import tail_max, worst_slice
from pipeline.tails.table import Row, drift_table, summarise
from pipeline.tails.thresholds import tail_thresholds

__all__ = [
    "QUANTITIES",
    "Estimate",
    "Row",
    "SwapTest",
    "change",
    "drift_table",
    "estimate",
    "frozen_threshold",
    "summarise",
    "tail_icc",
    "tail_max",
    "tail_thresholds",
    "worst_slice",
]
