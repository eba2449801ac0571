"""Linear decompositions of the patterns, beside the latents and on the same footing: PCA and NMF with endmembers."""

from vaearr.analysis.embedding.nmf import nnls
from vaearr.analysis.embedding.pca import Pca, broken_stick, fit_pca, pca_reconstruct
from vaearr.analysis.embedding.stored import embed, embed_store

__all__ = ["Pca", "broken_stick", "embed", "embed_store", "fit_pca", "nnls", "pca_reconstruct"]
