"""How latents go with side maps: dependence metrics, tables, rankings."""

from vaearr.association.metrics import METRICS, Metric, metric
from vaearr.association.stored import associate_store, run_latents, stored_table
from vaearr.association.table import associate, ranking
from vaearr.association.targets import categories, is_categorical, targets_of

__all__ = [
    "METRICS",
    "Metric",
    "associate",
    "associate_store",
    "categories",
    "is_categorical",
    "metric",
    "ranking",
    "run_latents",
    "stored_table",
    "targets_of",
]
