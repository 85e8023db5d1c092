"""Statistics of drift in the bulk and at the tails: numbers in, numbers with intervals out."""

from pipeline.tails.agreement import Agreement, kappa, phi, rating_agreement
from pipeline.tails.betting import EProcess, log_e_value
from pipeline.tails.bulk_tail import BulkTail, bulk_tail_point
from pipeline.tails.calibration import Calibration, calibration
from pipeline.tails.clustering import tail_icc
from pipeline.tails.comparison import Comparison, ComparisonRow, compare
from pipeline.tails.confirmation import Confirmation, Hypothesis, confirm, hypothesis
from pipeline.tails.detectable import Detectable
from pipeline.tails.estimates import Estimate
from pipeline.tails.exchange import SwapTest
from pipeline.tails.forecasting import Forecast, forecast
from pipeline.tails.multiplicity import CONFIRMATION_LEVEL, E_PROCESS_LEVEL, confirmation_alpha, holm, simes
from pipeline.tails.plans import SIGNLESS
from pipeline.tails.probe import probe_shift
from pipeline.tails.proportions import wilson
from pipeline.tails.quantiles import frozen_threshold
from pipeline.tails.quantities import QUANTITIES, change, estimate
from pipeline.tails.records import comparison_record, finite_record
from pipeline.tails.separation import RocArea, roc_area
from pipeline.tails.swap import tail_max, worst_slice
from pipeline.tails.table import Row, summarise
from pipeline.tails.thresholds import half_of, tail_thresholds

__all__ = [
    "CONFIRMATION_LEVEL",
    "E_PROCESS_LEVEL",
    "QUANTITIES",
    "SIGNLESS",
    "Agreement",
    "BulkTail",
    "Calibration",
    "Comparison",
    "ComparisonRow",
    "Confirmation",
    "Detectable",
    "EProcess",
    "Estimate",
    "Forecast",
    "Hypothesis",
    "RocArea",
    "Row",
    "SwapTest",
    "bulk_tail_point",
    "calibration",
    "change",
    "compare",
    "comparison_record",
    "confirm",
    "confirmation_alpha",
    "estimate",
    "finite_record",
    "forecast",
    "frozen_threshold",
    "half_of",
    "holm",
    "hypothesis",
    "kappa",
    "log_e_value",
    "phi",
    "probe_shift",
    "rating_agreement",
    "roc_area",
    "simes",
    "summarise",
    "tail_icc",
    "tail_max",
    "tail_thresholds",
    "wilson",
    "worst_slice",
]
