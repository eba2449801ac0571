"""What the explorer shows of the selected samples, and the files that it makes of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.latents import evenly_spaced
from vaearr.app.samples import GREY, png, stored
from vaearr.ingestion.kept_points import points_table
from vaearr.output.exporting import latent_table, select_latents
from vaearr.views.common import robust_limits

if TYPE_CHECKING:
    from vaearr.app.page import Explorer

MAX_AVERAGED = 64  # samples of a mean and a spread
HINT = "Draw a box on the map or the scatter to select several samples."
OUTLINED = {"color": "primary", "variant": "outline"}
SIDE = 190  # pixels of a picture


def selection_view(page: Explorer) -> Any:
    """The most typical sample, mean and spread of the selection."""
    rows = page.selected
    averaged = rows[evenly_spaced(len(rows), MAX_AVERAGED)]
    patterns = _comparable(page, np.append(averaged, page.row))
    *pictures, typical = page.as_pictures(patterns)
    images = {"most typical": typical}
    if len(rows) > 1:
        images[f"mean of {len(averaged)} samples"] = np.mean(pictures, 0)
        images["their spread (standard deviation)"] = np.std(pictures, 0)
    cells = ""
    for caption, image in images.items():
        address = png(image, robust_limits(image, GREY), SIDE)
        cells += (
            f'<figure style="margin: 0"><figcaption><b>{caption}</b></figcaption>'
            f'<img alt="{caption}" src="{address}" style="width: {SIDE}px; height: {SIDE}px; '
            'object-fit: contain; image-rendering: pixelated"></figure>'
        )
    head = pn.pane.HTML(
        f'<div style="display: flex; flex-wrap: wrap; gap: 10px; font-size: 13px">{cells}</div>'
    )
    return pn.Column(head, HINT) if len(rows) == 1 else head


def _comparable(page: Explorer, rows: np.ndarray) -> xr.DataArray:
    """Patterns of samples in the units of decoded ones, of a run without a network as stored."""
    patterns = stored(page.run, page.samples.numbers[rows])
    return page.run.as_decoded(patterns) if page.has_network else patterns


def downloads(page: Explorer) -> Any:
    """Buttons that make files of the selection and of the map."""
    buttons = [_download(page, "Save table", "selection.csv", _table)]
    if schema.is_scan(page.run.ds):
        buttons.insert(0, _download(page, "Keep as ROI", "roi.csv", _points))
    return pn.FlexBox(*buttons)


def _download(page: Explorer, label: str, filename: str, content: Any) -> Any:
    def callback() -> io.BytesIO:
        return io.BytesIO(content(page))

    return pn.widgets.FileDownload(
        callback=page.safe(callback), filename=filename, label=label, **OUTLINED
    )


def _points(page: Explorer) -> bytes:
    """The selected points as a list for `vaearr train --points`."""
    page.tell(
        f"roi.csv lists the selected points; to train on them: vaearr train {page.run.path.name} "
        "--points roi.csv --run NAME"
    )
    return points_table(page.run.ds, page.samples.numbers[page.selected]).encode()


def _table(page: Explorer) -> bytes:
    """Step numbers, latents and maps of the selected samples."""
    run = page.run
    navigation = set(schema.navigation_dims(run.ds))
    variables = run.ds.data_vars.items()
    maps = [str(name) for name, da in variables if set(da.dims) == navigation]
    if n.ELEMENTS in run.ds:
        maps.append(n.ELEMENTS)
    table = latent_table(run, select_latents(run, ()), maps)
    rows = page.samples.numbers[page.selected]
    return bytes(table.iloc[rows].to_csv(index=False, lineterminator="\n").encode())
