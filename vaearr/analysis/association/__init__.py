"""Dependence of latents on maps: metrics, tables, rankings, significance, partitions."""

from vaearr.analysis.association.joint import associate_jointly
from vaearr.analysis.association.metrics import METRICS
from vaearr.analysis.association.p_values import P_ADJUSTED
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.analysis.association.table import associate, ranking, strongest_latents
from vaearr.analysis.association.targets import element_rgb, targets_of

__all__ = [
    "METRICS",
    "P_ADJUSTED",
    "associate",
    "associate_jointly",
    "element_rgb",
    "latent_partitions",
    "ranking",
    "strongest_latents",
    "targets_of",
]
