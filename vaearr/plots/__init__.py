"""Datasets as pictures: HoloViews objects for the screen, matplotlib figures for paper (`vaearr.plots.static`).

Every function returns the object and saves nothing. The libraries are imported when a function is called.
"""

from vaearr.plots.common import robust_limits, roi_outline
from vaearr.plots.curves import (
    association_heatmap,
    health_bars,
    loss_curves,
    ranking_table,
    reconstructions,
)
from vaearr.plots.maps import latent_maps, map_plot, roi_overlay, side_maps
from vaearr.plots.scatter import map_scatter

__all__ = [
    "association_heatmap",
    "health_bars",
    "latent_maps",
    "loss_curves",
    "map_plot",
    "map_scatter",
    "ranking_table",
    "reconstructions",
    "robust_limits",
    "roi_outline",
    "roi_overlay",
    "side_maps",
]
