"""Looking around in a latent space: what classes, dimensions, planes and single latents decode to, and how they lie.

For any store: scans, collections, volumes. All functions give labelled Datasets (`activation_table` a DataFrame); those
that draw take a seed. Reached as `vaearr.explore`.
"""

from vaearr.exploration.activations import activations
from vaearr.exploration.components import latent_pca
from vaearr.exploration.distributions import histograms, pairs
from vaearr.exploration.embeddings import embedding
from vaearr.exploration.health import health
from vaearr.exploration.novelty import out_of_distribution, unusual
from vaearr.exploration.paths import path
from vaearr.exploration.prototypes import prototypes
from vaearr.exploration.tables import activation_table, latent_table, save_table
from vaearr.exploration.traversals import manifold, traverse

__all__ = [
    "activation_table",
    "activations",
    "embedding",
    "health",
    "histograms",
    "latent_pca",
    "latent_table",
    "manifold",
    "out_of_distribution",
    "pairs",
    "path",
    "prototypes",
    "save_table",
    "traverse",
    "unusual",
]
