"""Which scan points belong together: clusters of latents and maps, their summary, agreement, borders and outliers."""

from vaearr.clustering.boundaries import boundaries, boundary_segments
from vaearr.clustering.labels import cluster
from vaearr.clustering.methods import METHODS, Method, method
from vaearr.clustering.outliers import mahalanobis
from vaearr.clustering.scores import cluster_scores
from vaearr.clustering.stored import cluster_store
from vaearr.clustering.summary import cluster_stability, cluster_summary

__all__ = [
    "METHODS",
    "Method",
    "boundaries",
    "boundary_segments",
    "cluster",
    "cluster_scores",
    "cluster_stability",
    "cluster_store",
    "cluster_summary",
    "mahalanobis",
    "method",
]
