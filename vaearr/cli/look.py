"""`vaearr look …`: what a latent space decodes to, how the latents are distributed, and comparisons
of layers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import cloup

import vaearr as va
from vaearr.cli.common import (
    DEVICE_NAME,
    LOOK,
    OVERWRITE,
    PATH,
    RUN_NAME,
    STORE,
    TRUST,
    app,
    command,
    folder_of,
    print_lines,
    refuse,
    say,
)
from vaearr.cli.settings import Numbers
from vaearr.errors import ExistsError, NoInputError, UsageError, did_you_mean
from vaearr.names import BC

ENDINGS = {
    ".png": ".png or .pdf, the sheet",
    ".html": ".html, a page",
    ".npz": ".npz, the arrays",
    ".csv": ".csv, the table",
    ".gif": ".gif, an animation",
    "": "a name without ending: a folder for the sheet, the pictures and the latents",
}
PICTURES = (".png", ".pdf", ".html", ".npz")
SAMPLE = "number of a sample, or X:Y[:Z] of a scan point"


@cloup.group("look", short_help="Show pictures and numbers of a latent space and its data.")
def look() -> None:
    """Show pictures and numbers of a latent space, and of the data it was learned from."""


app.add_command(look, section=LOOK)


def point_of(text: str) -> Any:
    """Return a scan point X:Y[:Z], or the number of a sample. Raises UsageError for other text."""
    try:
        values = [float(number) for number in text.split(":")]
    except ValueError:
        raise UsageError(f"{text!r} is no sample; give its number, or X:Y[:Z].") from None
    return dict(zip("xyz", values, strict=False)) if len(values) > 1 else int(values[0])


def base_of(text: str) -> Any:
    """Return the value of `--base`: a word, a scan point or the number of a sample."""
    try:
        return point_of(text)
    except UsageError:
        return text


# ---- options that several commands have

COUNT = click.IntRange(min=1)
BASE = cloup.option(
    "--base",
    type=base_of,
    metavar="POINT",
    help="typical (default) or mean, typical:NAME or prototype:NAME of a class, X:Y[:Z] of a scan "
    "point, or number of a sample",
)
BY = cloup.option("--by", help="map with the classes; default: label, phase or clusters")
CLASSES = cloup.option(
    "--class", "classes", multiple=True, help="only this class of --by; repeatable"
)
DIMS = cloup.option(
    "--dim",
    "dims",
    type=click.IntRange(min=0),
    multiple=True,
    help="latent dimension; repeatable",
)
MAX_POINTS = cloup.option("--max-points", type=COUNT, help="use at most so many samples")
PERPLEXITY = cloup.option(
    "--perplexity", type=float, help="t-SNE: effective number of neighbours; default: 30"
)
SEED = cloup.option("--seed", type=click.IntRange(min=0), help="seed of random numbers; default: 0")
SOURCE = cloup.option(
    "--source",
    metavar="prior|fitted",
    help="prior (default), or fitted: the Gaussian of the run's latents",
)
SPAN = cloup.option(
    "--span",
    type=Numbers("LOW:HIGH"),
    metavar="LOW:HIGH",
    help="to either side of the base, such as --span=-3:3",
)
STEPS = cloup.option(
    "--steps",
    type=click.IntRange(min=2),
    help="pictures of each dimension, side or line; default: 9, of a manifold 15",
)
UNIT = cloup.option(
    "--unit",
    metavar="std|absolute",
    help="unit of --span: std of the aggregate posterior (default), or absolute",
)


def add_view(
    name: str, text: str, endings: Sequence[str], *options: Callable[..., Any], example: str
) -> None:
    """Add a command that calls the method `name` of an opened run.

    The command prints the result, and writes it to --out, whose ending is one of `endings`. Options
    that are not given keep the default of the method.
    """

    def call(
        store: str,
        run: str,
        trust: tuple[str, ...],
        out: Path | None,
        overwrite: bool,
        **values: Any,
    ) -> None:
        if out is not None:
            check_out(out, endings, overwrite)
        arguments = {key: value for key, value in values.items() if value not in (None, ())}
        result = getattr(va.load_run(store, run, trust=trust), name)(**arguments)
        if out is not None:
            write(result, out, name, overwrite)
        print_lines(va.describe(result))

    call.__doc__ = text
    forms = [ENDINGS[ending] for ending in endings if ending in ENDINGS]
    out_option = cloup.option("--out", type=PATH, help=f"file to write: {'; '.join(forms)}")
    for add_option in reversed((STORE, RUN_NAME, TRUST, out_option, OVERWRITE, *options)):
        add_option(call)
    command(f"vaearr look {name} {example}", group=look, name=name)(call)


add_view(
    "prototypes",
    "Decode a typical sample and the mean of each class.",
    PICTURES,
    BY,
    CLASSES,
    example="scan.zarr --by phase --out prototypes.png",
)
add_view(
    "traverse",
    """Show how patterns change along single latent dimensions.

    Each picture is decoded from the sample that is most similar to the base, among those with about
    that value of the dimension. Default: all dimensions, in order of KL. With --others base the
    other dimensions do not change; pictures with a frame are then far from every sample.
    """,
    (*PICTURES, ".gif"),
    DIMS,
    BASE,
    SPAN,
    STEPS,
    UNIT,
    BY,
    cloup.option(
        "--others",
        metavar="data|base",
        help="other dimensions: of the most similar sample (default), or those of the base",
    ),
    example="scan.zarr --dim 0 --out traverse.gif",
)
add_view(
    "manifold",
    "Decode a grid over two dimensions: the first --dim to the right, the second upwards.",
    PICTURES,
    DIMS,
    SPAN,
    STEPS,
    BASE,
    UNIT,
    BY,
    example="scan.zarr --dim 0 --dim 1 --out plane.png",
)
add_view(
    "line",
    """Decode points, or a line, in a plane: of two latents, of PCA, t-SNE or UMAP.

    The other dimensions keep the values of --base. PCA is inverted exactly; for t-SNE and UMAP the
    nearest sample is decoded.
    """,
    (*PICTURES, ".gif"),
    cloup.option(
        "--point",
        "points",
        type=Numbers("X:Y"),
        metavar="X:Y",
        multiple=True,
        help="in the plane, such as --point=-1:2; repeatable",
    ),
    cloup.option(
        "--space",
        metavar="plane|pca|tsne|umap",
        help="plane of two latents (default), or of an embedding of all",
    ),
    DIMS,
    STEPS,
    BASE,
    BY,
    SEED,
    MAX_POINTS,
    PERPLEXITY,
    example="scan.zarr --space pca --point=-2:0 --point=2:1 --out path.png",
)
add_view(
    "interpolate",
    "Decode the interpolation between two samples.",
    (*PICTURES, ".gif", ""),
    cloup.option("--a", type=point_of, metavar="POINT", required=True, help=f"first: {SAMPLE}"),
    cloup.option("--b", type=point_of, metavar="POINT", required=True, help=f"second: {SAMPLE}"),
    STEPS,
    cloup.option("--method", metavar="lerp|slerp", help="linear (default) or along a great circle"),
    example="scan.zarr --a 2:4 --b 9:7 --method slerp --out path.gif",
)
add_view(
    "sample",
    "Sample latents and decode them.",
    (*PICTURES, ""),
    cloup.option("--n", "n_samples", type=COUNT, help="number of samples; default: 16"),
    SEED,
    SOURCE,
    example="scan.zarr --n 16 --out samples",
)
add_view(
    "scatter",
    "Show samples in a plane by their latents, coloured by class.",
    PICTURES,
    cloup.option("--method", metavar="tsne|pca|umap", help="default: tsne"),
    SEED,
    MAX_POINTS,
    PERPLEXITY,
    cloup.option(
        "--neighbours",
        type=click.IntRange(min=2),
        help="UMAP: neighbours of a point; default: 15",
    ),
    BY,
    example="scan.zarr --method umap --out scatter.html",
)
add_view(
    "pairs",
    "Show each two of some latents: density and correlation.",
    PICTURES,
    DIMS,
    BY,
    MAX_POINTS,
    SEED,
    example="scan.zarr --by phase --out pairs.png",
)
add_view(
    "histograms",
    "Show histograms of latents, one for each class.",
    PICTURES,
    BY,
    CLASSES,
    DIMS,
    cloup.option("--bins", type=COUNT, help="bins of each dimension"),
    example="scan.zarr --by phase --out histograms.png",
)
add_view(
    "activations",
    "Show the latents of samples sorted by class.",
    PICTURES,
    BY,
    CLASSES,
    DIMS,
    MAX_POINTS,
    SEED,
    example="scan.zarr --out activations.png",
)
add_view(
    "describe",
    "Print count, mean, spread, quartiles and range of latents.",
    (".csv", ".npz"),
    example="scan.zarr --out latents.csv",
)
add_view(
    "statistics",
    "Show KL, active units, the aggregate posterior and the prior.",
    (*PICTURES, ".csv"),
    example="scan.zarr --out statistics.png",
)
add_view(
    "fidelity",
    "Compare generated samples with the data by Fréchet distances; needs vaearr[monai].",
    (".csv",),
    cloup.option("--n", "n_samples", type=COUNT, help="number of generated samples; default: 1000"),
    SOURCE,
    cloup.option(
        "--part",
        metavar="validation|train|all",
        help="data to compare with; default: validation",
    ),
    SEED,
    example="photos.zarr --n 500 --out fidelity.csv",
)


# ---- what is written


def check_out(out: Path, endings: Sequence[str], overwrite: bool) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    if out.suffix.lower() not in endings:
        raise UsageError(f"--out {out.name!r} must end in {', '.join(filter(None, endings))}.")
    if not out.parent.is_dir():
        raise NoInputError(f"there is no folder {out.parent}; create it first.")
    if out.suffix and out.exists() and not overwrite:
        raise ExistsError(
            f"{out} already exists; choose another name, or replace it with --overwrite."
        )


def write(result: Any, out: Path, name: str, overwrite: bool) -> None:
    """Write the view, an animation, the arrays or the table of a result, by the ending of `out`."""
    from vaearr.views import save
    from vaearr.views.paper import write_new
    from vaearr.views.pictures import frames, save_animation

    ending = out.suffix.lower()
    if ending == ".gif":
        refuse(
            result.sizes["step"] < 2,
            "an animation needs two points or more; give another --point or ending.",
        )
        save_animation(frames(result), out, overwrite=overwrite)
    elif ending == ".npz":
        write_new(out, arrays(result), overwrite)
    elif ending == ".csv":
        write_new(out, result.to_dataframe().to_csv(lineterminator="\n").encode(), overwrite)
    elif ending:
        save(result, out, overwrite=overwrite, titles=ending == ".png")
    else:
        write_folder(result, out, name)
    say(f"written: {out}")


def arrays(result: Any) -> bytes:
    """Return all variables and coordinates by their names as .npz; nothing is pickled."""
    import numpy as np

    values = {}
    for name, variable in result.variables.items():
        is_text = variable.dtype.kind in "OT"
        values[str(name)] = variable.values.astype(str) if is_text else variable.values
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **values)
    return data.getvalue()


def write_folder(result: Any, out: Path, name: str) -> None:
    """Write the sheet, single pictures, and the latents as a table with a row for each picture."""
    import numpy as np

    from vaearr.store.folders import output_folder
    from vaearr.views import save
    from vaearr.views.pictures import save_pictures

    with output_folder(out) as folder:
        save(result, folder / f"{name}.png", titles=True)
        save_pictures(result["decoded"], folder, name)
        latents = result["latents"].values
        rows = latents.reshape(len(latents), -1)
        columns = ",".join(f"latent_{i}" for i in range(rows.shape[1]))
        np.savetxt(folder / "z.csv", rows, "%.9g", delimiter=",", header=columns, comments="")


# ---- maps and layers


@command(
    "vaearr look contrast scan.zarr --row 4 --percent 10 --out bc.png",
    "vaearr look contrast scan.zarr --where 'BC >= 45' --keep kept.csv",
    group=look,
)
@STORE
@cloup.option("--map", "variable", default=BC, help="map to show")
@cloup.option("--out", type=PATH, help="PNG or PDF with map, histogram and profiles")
@cloup.option("--width", type=float, default=10.0, help="width of a bin of the histogram")
@cloup.option(
    "--row", "rows", type=float, multiple=True, help="profile along the row at this y; repeatable"
)
@cloup.option(
    "--column",
    "columns",
    type=float,
    multiple=True,
    help="profile along the column at this x; repeatable",
)
@cloup.option(
    "--percent",
    "top",
    type=click.FloatRange(0, 100, min_open=True),
    help="this share of the points, those with the largest values",
)
@cloup.option("--where", help='points by a condition, such as "BC >= 45"')
@cloup.option("--keep", type=PATH, help="CSV to write the points of --percent or --where to")
@OVERWRITE
def contrast(
    store: str,
    variable: str,
    out: Path | None,
    width: float,
    rows: Sequence[float],
    columns: Sequence[float],
    top: float | None,
    where: str | None,
    keep: Path | None,
    overwrite: bool,
) -> None:
    """Show histogram, profiles and selected points of band contrast or any other map."""
    from vaearr.analysis.side_maps import histogram, profile
    from vaearr.ingestion.kept_points import write_kept_coordinates
    from vaearr.schema import maps
    from vaearr.views import save

    refuse(
        keep and (top is None) == (where is None),
        "--keep writes the points of --percent or of --where; give one of them.",
    )
    if out is not None:
        check_out(out, (".png", ".pdf"), overwrite)
    ds = va.open_store(store, chunks=None)
    if variable not in maps(ds):
        raise NoInputError(f"{store} has no map {variable!r}.{did_you_mean(variable, maps(ds))}")
    values = ds[variable].load()
    counts = histogram(values, width)
    print_lines(va.describe(counts))
    selected = _selected_points(ds, values, top, where)
    if keep and selected is not None:
        say(f"their coordinates are in {write_kept_coordinates(ds, selected, keep)}")
    if out:
        profiles = [profile(values, "y", y) for y in rows]
        profiles += [profile(values, "x", x) for x in columns]
        save(
            values,
            out,
            kind="contrast",
            histogram=counts,
            profiles=profiles,
            roi=selected,
            overwrite=overwrite,
        )
        say(f"written: {out}")


def _selected_points(ds: Any, values: Any, top: float | None, where: str | None) -> Any:
    """Map of the points with the largest values or that fulfil a condition, which are counted."""
    from vaearr.analysis.side_maps import top_percent

    if top is not None:
        selected = top_percent(values, top)
        threshold = selected.attrs["threshold"]
        n_points = selected.attrs["n_kept"]
        click.echo(f"the strongest {top:g} %: {n_points} points from {threshold:g} on")
        return selected
    if where is not None:
        selected = va.roi(ds, where=where)
        click.echo(f"{where}: {selected.attrs['n']} points")
        return selected
    return None


@command(
    "vaearr look layers scan.zarr --a 2:4 --b 9:7 --out layers",
    "vaearr look layers photos.zarr --a ill --b well --out pairs",
    group=look,
)
@STORE
@RUN_NAME
@cloup.option("--a", type=base_of, required=True, help=f"first sample: {SAMPLE}; or a label")
@cloup.option("--b", type=base_of, required=True, help="second sample or label, given like --a")
@cloup.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    help="layers that are listed and whose maps are kept",
)
@cloup.option("--out", type=PATH, help="folder for tables and pictures")
@DEVICE_NAME
@TRUST
def layers(
    store: str,
    run: str,
    a: Any,
    b: Any,
    top: int,
    out: Path | None,
    device: str,
    trust: tuple[str, ...],
) -> None:
    """Compare two samples layer by layer: how far apart a trained model's activations are.

    The relative difference is divided by the RMS of the activations of --a. Two labels compare all
    samples of the same file name, as pairs. --out writes layers.csv, top_layers.png,
    layer_curves.png, difference_maps.png, of pairs pairs.csv, and the earlier programs'
    layer_differences.json or aggregated_results.json.
    """
    from vaearr.output.earlier import write_layer_files

    result = va.load_run(store, run, trust=trust, device=device).layers(a, b, top=top)
    with folder_of(out) as folder:
        if folder:
            write_layer_files(result, folder)
    for name in result.attrs.get("unpaired", ()):
        say(f"left out: {name} has no partner")
    print_lines(va.describe(result))
