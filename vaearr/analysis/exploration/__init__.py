"""Looking around in a latent space: what classes, dimensions, planes and single latents decode to, and how they lie.

For any store: scans, collections, volumes. All functions give labelled Datasets (`activation_table` a DataFrame); those
that draw take a seed. Reached as `vaearr.explore`.
"""

from vaearr.analysis.exploration.distributions import (
    activation_table,
    activations,
    histograms,
    latent_table,
    pairs,
)
from vaearr.analysis.exploration.embeddings import embedding, latent_pca, path
from vaearr.analysis.exploration.health import health
from vaearr.analysis.exploration.traversals import manifold, prototypes, traverse

__all__ = [
    "activation_table",
    "activations",
    "embedding",
    "health",
    "histograms",
    "latent_pca",
    "latent_table",
    "manifold",
    "pairs",
    "path",
    "prototypes",
    "traverse",
]
