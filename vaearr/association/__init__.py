"""How latents go with side maps: dependence metrics, tables, rankings."""

from vaearr.association.metrics import METRICS, Metric, metric
from vaearr.association.stored import associate_store, current_table, run_latents
from vaearr.association.table import associate, ranking, top_lines
from vaearr.association.targets import categories, is_categorical, targets_of

__all__ = [
    "METRICS",
    "Metric",
    "associate",
    "associate_store",
    "categories",
    "current_table",
    "is_categorical",
    "metric",
    "ranking",
    "run_latents",
    "targets_of",
    "top_lines",
]
