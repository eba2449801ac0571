"""Commands that look around in a latent space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaearr.cli.common import RunName, Store, app, box, say
from vaearr.cli.infer import point_of
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.names import DEFAULT_RUN

if TYPE_CHECKING:
    import xarray as xr

Out = Annotated[Path | None, typer.Option(help="file to write: .png or .pdf, the sheet; .npz, the arrays")]
Dims = Annotated[list[int] | None, typer.Option("--dim", help="latent dimension; repeat")]
From = Annotated[
    str, typer.Option("--base", help="mean, prototype:NAME, X:Y[:Z] of a scan point, or the number of a sample")
]
By = Annotated[str | None, typer.Option(help="map with the classes; default: label, phase or clusters")]
Ends = Annotated[str, typer.Option(help="LOW:HIGH to either side of the base, write --span=-3:3")]
Unit = Annotated[str, typer.Option(help="of --span: std of the aggregate posterior, or absolute")]


def _base(text: str) -> Any:
    is_named = text == "mean" or text.startswith("prototype:") or (not text[:1].isdigit() and text[:1] not in "-.")
    return text if is_named else point_of(text, "--base")


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix.lower() not in (".png", ".pdf", ".npz"):
        raise UsageError(f"--out {out.name!r} must end in .png, .pdf or .npz.")
    if not out.absolute().parent.is_dir():
        raise NoInputError(f"there is no folder {out.parent}; make it first.")
    if out.exists():
        raise ExistsError(f"{out} is there already; give another name.")


def _write(found: xr.Dataset, out: Path | None, sheet: Callable[[xr.Dataset], Any]) -> None:
    """The sheet, or all arrays and coordinates by their names; texts as such, nothing pickled."""
    if out is None:
        return
    if out.suffix.lower() == ".npz":
        import numpy as np

        arrays: dict[str, Any] = {}
        for name, variable in found.variables.items():
            values = variable.values
            arrays[str(name)] = values.astype(str) if values.dtype.kind in "OT" else values
        np.savez_compressed(out, allow_pickle=False, **arrays)
    else:
        from vaearr.plots import save_figure

        save_figure(sheet(found), out)
    say(f"written: {out}")


@app.command()
def prototypes(store: Store, run: RunName = DEFAULT_RUN, by: By = None, out: Out = None) -> None:
    """Mean latents of each class and what they decode to."""
    from vaearr.exploration import prototypes as find
    from vaearr.exploration.points import pooled
    from vaearr.plots.exploration import prototype_sheet

    _check_out(out)
    found = find(store, run, by)
    _write(found, out, prototype_sheet)
    vectors = pooled(found["latents"].values)
    for name, count, means in zip(found["class"].values, found["n"].values, vectors, strict=True):
        typer.echo(f"{name}: n {int(count)}, {' '.join(f'{value:.4g}' for value in means)}")
    if found.attrs["empty"]:
        say(f"without an encoded sample: {', '.join(found.attrs['empty'])}")


@app.command()
def traverse(
    store: Store,
    run: RunName = DEFAULT_RUN,
    dim: Dims = None,
    base: From = "mean",
    by: By = None,
    span: Ends = "-3:3",
    unit: Unit = "std",
    steps: Annotated[int, typer.Option(help="pictures of each dimension")] = 9,
    out: Out = None,
) -> None:
    """Move one latent dimension after another and decode; all of them, or those of --dim."""
    from vaearr.exploration import traverse as find
    from vaearr.plots.exploration import traversal_sheet

    _check_out(out)
    ends = box(span, "--span", "LOW:HIGH")
    found = find(store, run, dim or None, _base(base), ends or (-3, 3), steps, unit=unit, by=by)
    _write(found, out, traversal_sheet)
    typer.echo(f"from {found.attrs['base']}")
    for i, values in zip(found["latent_dim"].values, found["value"].values, strict=True):
        typer.echo(f"latent {i}: {values[0]:.4g} to {values[-1]:.4g} in {steps} steps")


@app.command()
def manifold(
    store: Store,
    run: RunName = DEFAULT_RUN,
    dim: Dims = None,
    base: From = "mean",
    by: By = None,
    span: Ends = "-3:3",
    unit: Unit = "std",
    steps: Annotated[int, typer.Option(help="pictures along each side")] = 15,
    out: Out = None,
) -> None:
    """Decode a grid over two latent dimensions: the first --dim to the right, the second upwards (default 0 and 1)."""
    from vaearr.exploration import manifold as find
    from vaearr.plots.exploration import manifold_sheet

    _check_out(out)
    ends = box(span, "--span", "LOW:HIGH")
    pair: Any = tuple(dim) if dim else (0, 1)
    found = find(store, run, pair, ends or (-3, 3), steps, base=_base(base), unit=unit, by=by)
    _write(found, out, manifold_sheet)
    for axis in ("column", "row"):
        values = found[axis].values
        typer.echo(f"{axis}s: {found[axis].attrs['long_name']} from {values[0]:.4g} to {values[-1]:.4g}")
