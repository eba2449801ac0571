"""What latents decode to, on the screen: traversals, planes, prototypes, paths, draws, as HoloViews objects.

They render in a notebook and are saved with `save_view` (or `holoviews.save`) as a page that needs no server.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.plots.common import DIVERGING, brief, holoviews, label, number, robust_limits, text, title
from vaearr.plots.decoded import LIMITS, UNUSED, pictures
from vaearr.plots.exploration import class_heat, stacked, units_of
from vaearr.plots.exploration_scatter import MARK, colors_of, path_words, point_classes

FRAME = 420
TILE, LEAST, MOST = 84, 320, 1100  # pixels: of a picture in a strip, and of a whole strip
GAP = 2  # image pixels between the pictures of a strip
BOKEH = {"backend": "bokeh"}


def picture(image: np.ndarray, limits: tuple[float, float], **options: Any) -> Any:
    """A picture `(H, W)` or `(H, W, 3)` as a HoloViews image on the axes of its pixels, the first row on top."""
    hv = holoviews()
    tall, wide = image.shape[:2]
    where = {"bounds": (0, 0, wide, tall)}
    if image.ndim == 3:
        low, high = limits
        shown = hv.RGB(np.nan_to_num(np.clip((image - low) / (high - low), 0, 1)), ["across", "up"], **where)
    else:
        shown = hv.Image(np.asarray(image, "f4"), ["across", "up"], "decoded", **where)
        shown = shown.opts(cmap="gray", clim=limits, clipping_colors={"NaN": "white"}, **BOKEH)
    return shown.opts(**{"xlabel": "", "ylabel": "", "toolbar": None} | options, **BOKEH)


def tiled(images: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures `(k, H, W[, 3])` row by row in one, with gaps; the middle of each column, and the middle of each row.

    The middles count from the left and from below, in pixels.
    """
    count, tall, wide = images.shape[:3]
    lines = -(-count // columns)
    shape = (lines * (tall + GAP) - GAP, columns * (wide + GAP) - GAP, *images.shape[3:])
    sheet = np.full(shape, np.nan, np.float32)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        top, left = row * (tall + GAP), column * (wide + GAP)
        sheet[top : top + tall, left : left + wide] = image
    x = np.arange(columns) * (wide + GAP) + wide / 2
    y = shape[0] - np.arange(lines) * (tall + GAP) - tall / 2
    return sheet, x, y


def on_its_own(plot: Any, _: Any) -> None:
    """Borders of its own width, not matched to the plots around it, which would push what stands last out of view."""
    plot.state.frame_align = False


def strip(images: np.ndarray, names: list[str], limits: tuple[float, float], heading: str, **options: Any) -> Any:
    """Pictures in one row, a name under each."""
    sheet, x, _ = tiled(images, len(images))
    width = int(np.clip(TILE * len(images), LEAST, MOST))
    high = round(width * sheet.shape[0] / sheet.shape[1])
    own = {
        "xticks": list(zip(x.tolist(), map(text, names), strict=True)), "yaxis": None, "title": title(heading),
        "frame_width": width, "frame_height": high, "hooks": [on_its_own], "fontsize": {"xticks": 8, "title": 10},
    }  # fmt: skip
    return picture(sheet, limits, **own | options)


def traversal_view(found: xr.Dataset) -> Any:
    """The result of `traverse` as a HoloMap over its dimensions: a strip of pictures each, all on one grey scale."""
    hv = holoviews()
    images = stacked(found["decoded"], ("latent_dim", "step"))
    limits = robust_limits(images, LIMITS)
    about = f"from {brief(found.attrs['base'], 40)} ({units_of(found['decoded'])})"
    strips = {
        int(dim): strip(row, [number(value) for value in values], limits, f"latent {int(dim)}, {about}")
        for dim, row, values in zip(found["latent_dim"].values, images, found["value"].values, strict=True)
    }
    return hv.HoloMap(strips, kdims="latent")


def manifold_view(found: xr.Dataset) -> Any:
    """The result of `manifold` as one picture on axes of the two dimensions, the vertical one rising upwards."""
    images = stacked(found["decoded"], ("row", "column"))
    limits = robust_limits(images, LIMITS)
    rows, columns = images.shape[:2]
    sheet, x, y = tiled(images[::-1].reshape(-1, *images.shape[2:]), columns)
    every = max(1, -(-max(rows, columns) // 10))
    across = [(float(x[i]), number(found["column"].values[i])) for i in range(0, columns, every)]
    up = [(float(y[rows - 1 - i]), number(found["row"].values[i])) for i in range(0, rows, every)]
    return picture(
        sheet, limits, xticks=across, yticks=up, xlabel=text(found["column"].attrs["long_name"]),
        ylabel=text(found["row"].attrs["long_name"]), toolbar="right", frame_width=FRAME,
        frame_height=round(FRAME * sheet.shape[0] / sheet.shape[1]),
        title=title(f"others: {brief(found.attrs['base'], 30)} ({units_of(found['decoded'])})"),
    )  # fmt: skip


def prototype_view(found: xr.Dataset) -> Any:
    """The decoded prototypes beside each other, and their latents as a heat map centred at 0."""
    hv = holoviews()
    images = stacked(found["decoded"], ("class",))
    names = [brief(name, 14) for name in found["class"].values]
    above = strip(
        images, names, robust_limits(images, LIMITS), f"means by {found.attrs['by']} ({units_of(found['decoded'])})"
    )
    return hv.Layout([above, heat_view(class_heat(found), names, "mean latent")]).cols(1).opts(shared_axes=False)


def heat_view(values: np.ndarray, names: list[str], what: str, **options: Any) -> Any:
    """A heat map `(rows, dimensions)` centred at 0, a name for each row, the first on top."""
    hv = holoviews()
    rows, size = values.shape
    reach = float(np.nanmax(abs(values), initial=0)) or 1.0
    own = {
        "cmap": DIVERGING, "clim": (-reach, reach), "colorbar": True, "tools": ["hover"], "xlabel": "latent dimension",
        "clabel": "", "ylabel": "", "yticks": [(i, text(name)) for i, name in enumerate(names)], "invert_yaxis": True,
        "frame_width": max(260, min(900, 18 * size)), "frame_height": int(np.clip(18 * rows, 120, 700)),
        "title": title(what),
    }  # fmt: skip
    image = hv.Image(
        (np.arange(size), np.arange(rows), np.asarray(values, "f4")), ["latent", "row"], text(what)
    ) if min(values.shape) > 1 else hv.QuadMesh(
        (np.arange(size + 1) - 0.5, np.arange(rows + 1) - 0.5, np.asarray(values, "f4")), ["latent", "row"], text(what)
    )  # fmt: skip
    return image.opts(**own | options, **BOKEH)


def scatter_view(
    position: np.ndarray, axes: list[str], classes: tuple[np.ndarray, list[str], str] | None, numbers: np.ndarray
) -> Any:
    """Points `(k, 2)` in a plane in the colours of their classes; the hover names the sample."""
    hv = holoviews()
    dims = [text(name) for name in axes]
    options = {"size": 4, "alpha": 0.6, "tools": ["hover"], "line_color": None, "frame_width": FRAME,
               "frame_height": FRAME, "data_aspect": 1, **BOKEH}  # fmt: skip
    if classes is None:
        return hv.Points((*position.T, numbers), dims, "sample").opts(color=UNUSED, **options)
    codes, names, by = classes
    kinds = [(i, name, color) for i, (name, color) in enumerate(zip(names, colors_of(len(names)), strict=True))]
    if (codes < 0).any():
        kinds.insert(0, (-1, "none", UNUSED))
    groups = {
        name: hv.Points((*position[codes == i].T, numbers[codes == i]), dims, "sample", label=name).opts(
            color=color, **options
        )
        for i, name, color in kinds
    }
    return hv.NdOverlay(groups, kdims=text(by)).opts(legend_position="right", title=title(by), **BOKEH)


def _on_top(plot: Any, _: Any) -> None:
    """Above the samples, whatever the order in which an overlay of overlays is drawn."""
    plot.handles["glyph_renderer"].level = "annotation"


def path_view(found: xr.Dataset) -> Any:
    """The samples in a plane with the numbered points of `path`, above what they decode to."""
    hv = holoviews()
    axes = [str(a) for a in found["axis"].values]
    dims = [text(a) for a in axes]
    cloud = scatter_view(found["scatter"].values, axes, point_classes(found), found["number"].values)
    position, asked = found["position"].values, found["requested"].values
    names = [str(i + 1) for i in range(len(position))]
    moved = ~np.isclose(position, asked).all(1)
    if moved.any():
        lines = [np.stack([start, end]) for start, end in zip(asked[moved], position[moved], strict=True)]
    else:
        lines = [position]
    marks = [
        hv.Path(lines, dims).opts(color=MARK, line_width=1.5, hooks=[_on_top], **BOKEH),
        hv.Points(position, dims).opts(color="white", line_color=MARK, size=17, hooks=[_on_top], **BOKEH),
        hv.Labels((*position.T, names), dims, "text").opts(
            text_color=MARK, text_font_size="9pt", hooks=[_on_top], **BOKEH
        ),
    ]
    images = pictures(found["decoded"])
    below = strip(images, names, robust_limits(images, LIMITS), f"decoded ({units_of(found['decoded'])})")
    plane = hv.Overlay([cloud, *marks]).opts(
        title=title(path_words(found)), xlabel=dims[0], ylabel=dims[1], legend_position="right", **BOKEH
    )
    return hv.Layout([plane, below]).cols(1).opts(shared_axes=False)


def vector_view(found: xr.Dataset) -> Any:
    """The decoded pictures of `sample_prior` or `interpolate` over the heat map of their latents."""
    hv = holoviews()
    lead = str(found["decoded"].dims[0])
    images = pictures(found["decoded"])
    vectors = found["latents"].values
    vectors = vectors.reshape(*vectors.shape[:2], -1).mean(-1)
    key = "t" if "t" in found.coords else lead
    names = [f"{value:.3g}" for value in found[key].values]
    about = found.attrs.get("method") or f"draws from {found.attrs.get('source')}"
    above = strip(images, names, robust_limits(images, LIMITS), f"{about} ({units_of(found['decoded'])})")
    return hv.Layout([above, heat_view(vectors, names, label(found["latents"]))]).cols(1).opts(shared_axes=False)
