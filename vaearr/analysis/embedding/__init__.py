"""Linear decompositions of the patterns, beside the latents and on the same footing: PCA and NMF with endmembers."""

from vaearr.analysis.embedding.nmf import nnls
from vaearr.analysis.embedding.pca import Pca, broken_stick, fit_pca, pca_reconstruct

__all__ = ["Pca", "broken_stick", "fit_pca", "nnls", "pca_reconstruct"]
