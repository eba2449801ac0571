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
from vaearr.plots.exploration_pages import save_view
from vaearr.plots.exploration_plots import (
    activation_view,
    embedding_view,
    histogram_view,
    latent_health_view,
    latent_pca_view,
    pair_view,
    table_view,
    unusual_view,
)
from vaearr.plots.exploration_views import (
    manifold_view,
    path_view,
    prototype_view,
    traversal_view,
    vector_view,
)
from vaearr.plots.maps import latent_maps, map_plot, rgb_map, roi_overlay, score_maps, side_maps
from vaearr.plots.overlays import boundary_overlay, kam_overlay, outlier_overlay, window_overlay
from vaearr.plots.paper import journal, save_figure
from vaearr.plots.scatter import map_scatter

__all__ = [
    "activation_view",
    "association_heatmap",
    "boundary_overlay",
    "cluster_map",
    "cluster_view",
    "comparison_view",
    "component_images",
    "confusion_heatmap",
    "density_plot",
    "embedding_view",
    "health_bars",
    "histogram_plot",
    "histogram_view",
    "journal",
    "kam_overlay",
    "latent_health_view",
    "latent_maps",
    "latent_pca_view",
    "loss_curves",
    "manifold_view",
    "map_plot",
    "map_scatter",
    "metric_heatmap",
    "outlier_overlay",
    "pair_view",
    "path_view",
    "profile_plot",
    "prototype_view",
    "ranking_table",
    "reconstructions",
    "rgb_map",
    "robust_limits",
    "roi_outline",
    "roi_overlay",
    "save_figure",
    "save_view",
    "score_maps",
    "side_maps",
    "table_view",
    "traversal_view",
    "unusual_view",
    "variance_curve",
    "vector_view",
    "window_overlay",
]
