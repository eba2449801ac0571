"""A decomposition in a few lines for a terminal."""

from __future__ import annotations

import xarray as xr

from vaearr import names as n
from vaearr.embedding.methods import CUMULATIVE


def embed_lines(ds: xr.Dataset, name: str = n.PCA) -> list[str]:
    """Components and how much of the patterns they explain; warnings; what to do next."""
    scores = ds[name]
    count = scores.sizes[f"{name}_{n.COMPONENT}"]
    explained = f"{name}_{CUMULATIVE}"
    if explained in ds:
        share = f"{float(ds[explained][-1]):.1%} of the patterns' variance, noise included, explained"
    else:
        r2 = scores.attrs.get("r2")
        share = f"mean squared error {scores.attrs['mse']:.4g}" + ("" if r2 is None else f", R^2 {r2:.3f}")
    points = f"{scores.attrs['n_fitted']} {'samples' if n.SAMPLE in scores.dims else 'scan points'}"
    return [
        f"{name}: {count} components of {points}, {share}",
        *(f"warning: {text}" for text in scores.attrs.get("warnings", [])),
        f"next: 'vaearr associate STORE --variable {name}', or cluster by it with --feature {name}",
    ]
