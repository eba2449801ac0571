"""Datasets as pictures: HoloViews objects for the screen, matplotlib figures for paper (`vaearr.plots.static`).

Every function returns the object and saves nothing; `save_figure` writes a figure as PNG or PDF. The libraries are
imported when a function is called.
"""

from vaearr.plots.associations import association_heatmap, metric_heatmap, ranking_table
from vaearr.plots.clusters import cluster_map, cluster_view
from vaearr.plots.common import robust_limits, roi_outline
from vaearr.plots.comparison import comparison_view, confusion_heatmap
from vaearr.plots.components import component_images, variance_curve
from vaearr.plots.contrast import histogram_plot, profile_plot
from vaearr.plots.curves import health_bars, loss_curves, reconstructions
from vaearr.plots.density import density_plot
from vaearr.plots.maps import latent_maps, map_plot, rgb_map, roi_overlay, score_maps, side_maps
from vaearr.plots.overlays import boundary_overlay, kam_overlay, outlier_overlay, window_overlay
from vaearr.plots.paper import journal, save_figure
from vaearr.plots.scatter import map_scatter

__all__ = [
    "association_heatmap",
    "boundary_overlay",
    "cluster_map",
    "cluster_view",
    "comparison_view",
    "component_images",
    "confusion_heatmap",
    "density_plot",
    "health_bars",
    "histogram_plot",
    "journal",
    "kam_overlay",
    "latent_maps",
    "loss_curves",
    "map_plot",
    "map_scatter",
    "metric_heatmap",
    "outlier_overlay",
    "profile_plot",
    "ranking_table",
    "reconstructions",
    "rgb_map",
    "robust_limits",
    "roi_outline",
    "roi_overlay",
    "save_figure",
    "score_maps",
    "side_maps",
    "variance_curve",
    "window_overlay",
]
