"""Principal components of rows."""

from vaearr.models.linear import Components as Pca
from vaearr.models.linear import fit_pca

__all__ = ["Pca", "fit_pca"]
