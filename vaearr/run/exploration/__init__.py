"""Looking around in a latent space: what classes, dimensions, planes and single latents decode to, and how they lie.

For any store: scans, collections, volumes. All functions give labelled Datasets (`activation_table` a DataFrame); those
that draw take a seed. Reached as `vaearr.explore`.
"""

from vaearr.run.exploration.distributions import (
    activation_table,
    activations,
    histograms,
    latent_table,
    pairs,
)
from vaearr.run.exploration.embeddings import embedding, latent_pca, path
from vaearr.run.exploration.health import health
from vaearr.run.exploration.traversals import manifold, prototypes, traverse

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
