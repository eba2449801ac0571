"""Which scan points belong together: clusters of latents and maps, their summary, agreement, and
borders.
"""

from vaearr.analysis.clustering.labels import boundary_segments, cluster
from vaearr.analysis.clustering.methods import METHODS, Method, method
from vaearr.analysis.clustering.tables import cluster_scores, cluster_summary

__all__ = [
    "METHODS",
    "Method",
    "boundary_segments",
    "cluster",
    "cluster_scores",
    "cluster_summary",
    "method",
]
