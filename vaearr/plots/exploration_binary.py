"""Reconstructions as black and white: which pixels lie at or above a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import NoInputError, UsageError
from vaearr.plots.common import robust_limits
from vaearr.plots.decoded import LIMITS, pictures, show_picture
from vaearr.plots.exploration import units_of
from vaearr.plots.paper import SMALL, WIDTH, journal, new_figure

ROWS = ("input", "reconstruction", "input ≥", "reconstruction ≥")


def binary_strip(found: xr.Dataset, threshold: float, *, most: int = 8) -> Any:
    """Examples of `reconstruct_store`: input and reconstruction, and both as black and white at a threshold.

    threshold: in the units of the pictures; a colour picture counts by the mean of its channels. Under each example the
    share of its pixels on which the two differ. Raises NoInputError where there is no example, UsageError for a
    threshold that is no number.
    """
    if "input" not in found or not found.sizes.get("example"):
        raise NoInputError("no example was kept; reconstruct with examples of 1 or more.")
    if not np.isfinite(threshold):
        raise UsageError(f"the threshold is {threshold}; give a number in the units of the pictures.")
    shown = found.isel(example=slice(most))
    grey = [pictures(shown[name]) for name in ("input", "reconstruction")]
    limits = robust_limits(np.stack(grey), LIMITS)
    plain = [images.mean(-1) if images.ndim == 4 else images for images in grey]
    masks = [(images >= threshold).astype("f4") for images in plain]
    differ = (masks[0] != masks[1]).mean((1, 2))
    count = len(differ)
    with journal():
        side = WIDTH / 8.6
        figure = new_figure(max(side * count + 0.4, 2.8), 4 * side * grey[0].shape[1] / grey[0].shape[2] + 0.9)
        axes = figure.subplots(4, count, squeeze=False)
        for line, name, images in zip(axes, ROWS, [*grey, *masks], strict=True):
            for ax, image in zip(line, images, strict=True):
                show_picture(ax, image, (0, 1) if "≥" in name else limits)
            line[0].set_ylabel(f"{name[:-2]}\n≥ {threshold:g}" if "≥" in name else name, fontsize=SMALL)
        for ax, share in zip(axes[-1], differ, strict=True):
            ax.set_xlabel(f"{share:.1%} differ", fontsize=SMALL, labelpad=2)
        figure.suptitle(f"reconstructions, black and white ({units_of(shown['input'])})")
    return figure
