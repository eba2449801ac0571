"""What is exported."""

from __future__ import annotations

from typing import Literal

from vaearr import names as n
from vaearr.config import Config


class ExportConfig(Config):
    """What an export holds.

    format: registered format: csv, parquet, npy, png, pdf, seed0. run: run whose latents and region are exported.
    variables: csv, parquet: further columns (BC, phase, split, clusters, elements …); png, pdf: the maps to draw, none
    for the sheet of latents. points: csv, parquet: points of the region, or all. latents: dimensions in tables, sheets
    and latent maps; empty = all. dpi: of pictures.

    For seed0 also: target: band contrast variable. clusters: cluster maps of the store; empty = all that a clustering
    of this run wrote. methods: clusterings to make now, of one latent and the target (k and the like by their
    defaults). latent: the dimension beside the target in cluster files; default: the clustering's own if it used one,
    else the strongest by |Pearson|. elements, weights: of the element sum; default: all, equal. synth_mode,
    rgb_elements: sum, or luminance of one to three elements. reference: scores that clusters of each latent are
    compared with; default: pca, else nmf, if there. seed: of clusterings and mixtures made here.
    """

    format: str = "seed0"
    run: str = n.DEFAULT_RUN
    variables: tuple[str, ...] = ()
    points: Literal["roi", "all"] = "roi"
    latents: tuple[int, ...] = ()
    dpi: int = 300
    target: str = n.BC
    clusters: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    latent: int | None = None
    elements: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    synth_mode: Literal["sum", "rgb"] = "sum"
    rgb_elements: tuple[str, ...] = ()
    reference: str | None = None
    seed: int = 0
