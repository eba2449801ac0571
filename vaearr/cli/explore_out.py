"""Options that the commands of exploration share, and what they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaearr.cli.common import say
from vaearr.cli.infer import point_of
from vaearr.errors import ExistsError, NoInputError, UsageError, need

if TYPE_CHECKING:
    import xarray as xr

SHEET, TABLE = (".png", ".pdf", ".html", ".npz"), (".csv", ".parquet")

Out = Annotated[
    Path | None, typer.Option(help="file to write: .png or .pdf, the sheet; .html, a page; .npz, the arrays")
]
OutWithTable = Annotated[
    Path | None,
    typer.Option(help="file to write: .png or .pdf, the sheet; .html, a page; .npz, the arrays; .csv, .parquet"),
]
OutWithFilm = Annotated[
    Path | None,
    typer.Option(help="file to write: .png or .pdf, the sheet; .html, a page; .npz, the arrays; .gif, an animation"),
]
Dims = Annotated[list[int] | None, typer.Option("--dim", help="latent dimension; repeat")]
From = Annotated[
    str, typer.Option("--base", help="mean, prototype:NAME, X:Y[:Z] of a scan point, or the number of a sample")
]
By = Annotated[str | None, typer.Option(help="map with the classes; default: label, phase or clusters")]
Classes = Annotated[list[str] | None, typer.Option("--class", help="only samples of this class of --by; repeat")]
Ends = Annotated[str, typer.Option(help="LOW:HIGH to either side of the base, write --span=-3:3")]
Unit = Annotated[str, typer.Option(help="of --span: std of the aggregate posterior, or absolute")]
Seed = Annotated[int, typer.Option(min=0, help="seed of whatever is drawn")]
Bins = Annotated[int | None, typer.Option(help="of each dimension; default: by the number of samples, at most 50")]
Pooled = Annotated[
    bool, typer.Option("--pooled", help="spatial latents: one mean for each dimension, as where a mask left some out")
]
Perplexity = Annotated[float, typer.Option(help="of t-SNE: about how many neighbours count")]


def base_of(text: str) -> Any:
    """What `--base` names: a word, a scan point or the number of a sample."""
    is_named = text == "mean" or text.startswith("prototype:") or (not text[:1].isdigit() and text[:1] not in "-.")
    return text if is_named else point_of(text, "--base")


def check_out(out: Path | None, endings: tuple[str, ...] = SHEET) -> None:
    """Refuse a file that could not be written, before anything is worked out."""
    if out is None:
        return
    if out.suffix.lower() not in endings:
        raise UsageError(f"--out {out.name!r} must end in {', '.join(endings[:-1])} or {endings[-1]}.")
    if out.suffix.lower() == ".parquet":
        need("pyarrow", "vaearr[parquet]", out.name)
    if not out.absolute().parent.is_dir():
        raise NoInputError(f"there is no folder {out.parent}; make it first.")
    if out.exists():
        raise ExistsError(f"{out} is there already; give another name.")


Writers = Mapping[str, Callable[[Path], Any]]


def write(found: xr.Dataset, out: Path | None, *, heading: str, more: Writers | None = None, **options: Any) -> None:
    """Write `out` by its ending: the view of a result, with its options, its arrays, or what `more` has for it."""
    if out is None:
        return
    ending = out.suffix.lower()
    if more and ending in more:
        more[ending](out)
    elif ending == ".npz":
        _arrays(found, out)
    else:
        from vaearr.views import save

        save(found, out, heading=heading, sentences=[_origin(found)], **options)
    say(f"written: {out}")


def _origin(found: xr.Dataset) -> str:
    weights = found.attrs.get("weights_sha256")
    return f"Run {found.attrs.get('run')!r}" + (f", weights {weights[:12]}." if weights else ".")


def _arrays(found: xr.Dataset, out: Path) -> None:
    """All arrays and coordinates by their names; texts as such, nothing pickled."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for name, variable in found.variables.items():
        values = variable.values
        arrays[str(name)] = values.astype(str) if values.dtype.kind in "OT" else values
    part = out.with_name(f".{out.stem}.part.npz")
    try:
        np.savez_compressed(part, allow_pickle=False, **arrays)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def tables(make: Callable[[], Any]) -> Writers:
    """Writers of a table as CSV and Parquet."""

    def save(path: Path) -> None:
        from vaearr.exploration import save_table

        save_table(make(), path)

    return dict.fromkeys(TABLE, save)


def row(values: Any) -> str:
    """Numbers beside each other."""
    return " ".join(f"{float(value):.4g}" for value in values)
