"""Maps and sheets as PNG and PDF at journal resolution."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.exporting.content import Content
from vaearr.exporting.formats import fmt
from vaearr.exporting.tables import column_names, file_name


@fmt("png", holds="the sheet of latent maps, or the maps named, as PNG at 300 dpi")
def png(content: Content, folder: Path) -> None:
    """`latents.png`, or one file for each map of the variables asked for."""
    _pictures(content, folder, "png")


@fmt("pdf", holds="the sheet of latent maps, or the maps named, as PDF")
def pdf(content: Content, folder: Path) -> None:
    """`latents.pdf`, or one file for each map of the variables asked for."""
    _pictures(content, folder, "pdf")


def _pictures(content: Content, folder: Path, ending: str) -> None:
    content.need_plane()
    from vaearr.views import save

    if not content.config.variables:
        sheet = folder / f"{content.latents.name}.{ending}"
        save(content.latents, sheet, dpi=content.config.dpi, kind="stack", entries=content.chosen())
    for name in content.config.variables:
        for column, one in zip(column_names(content, name), maps_of(content, name), strict=True):
            outline = None if name.startswith((n.ROI, n.LATENTS)) else content.roi
            path = folder / f"{file_name(column)}.{ending}"
            if path.exists():
                raise UsageError(f"two pictures would be called {path.name!r}; name one variable less.")
            save(one, path, dpi=content.config.dpi, kind="map", roi=outline)


def maps_of(content: Content, name: str) -> list[xr.DataArray]:
    """A variable as maps: itself, or one for each entry of its further dim, named after it."""
    variable = content.variable(name).load()
    extra = [str(dim) for dim in variable.dims if dim not in content.dims]
    if not extra:
        return [variable.astype("i1") if variable.dtype == bool else variable]
    parts = [variable.isel({extra[0]: i}, drop=True) for i in range(variable.sizes[extra[0]])]
    return [
        part.rename(column).assign_attrs(long_name=column)
        for part, column in zip(parts, column_names(content, name), strict=True)
    ]
