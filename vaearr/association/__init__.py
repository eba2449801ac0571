"""How latents go with side maps: dependence metrics, tables, rankings, significance, partitions."""

from vaearr.association.classes import associate_classes
from vaearr.association.columns import Columns
from vaearr.association.metrics import METRICS, Metric, metric
from vaearr.association.p_values import P_ADJUSTED, P_VALUE, significance
from vaearr.association.partitions import latent_partitions
from vaearr.association.stored import (
    associate_store,
    check_reference,
    current_table,
    latents_of,
    partitions_store,
    run_latents,
)
from vaearr.association.table import associate, ranking
from vaearr.association.targets import element_rgb, element_sum, targets_of
from vaearr.schema import categories, is_categorical

__all__ = [
    "METRICS",
    "P_ADJUSTED",
    "P_VALUE",
    "Columns",
    "Metric",
    "associate",
    "associate_classes",
    "associate_store",
    "categories",
    "check_reference",
    "current_table",
    "element_rgb",
    "element_sum",
    "is_categorical",
    "latent_partitions",
    "latents_of",
    "metric",
    "partitions_store",
    "ranking",
    "run_latents",
    "significance",
    "targets_of",
]
