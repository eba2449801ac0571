"""How latents go with side maps: dependence metrics, tables, rankings, significance, partitions."""

from vaearr.analysis.association import correlations, information, distance, hsic, joint  # noqa: F401, I001  (they register)
from vaearr.analysis.association.columns import Columns
from vaearr.analysis.association.joint import associate_jointly
from vaearr.analysis.association.metrics import METRICS, metric
from vaearr.analysis.association.p_values import P_ADJUSTED
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.analysis.association.table import associate, ranking
from vaearr.analysis.association.targets import element_rgb, targets_of

__all__ = [
    "METRICS",
    "P_ADJUSTED",
    "Columns",
    "associate",
    "associate_jointly",
    "element_rgb",
    "latent_partitions",
    "metric",
    "ranking",
    "targets_of",
]
