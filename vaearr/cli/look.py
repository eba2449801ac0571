"""`vaearr look …`: what a latent space decodes to, how the latents are distributed, and comparisons
of layers.

Most commands are the method of a run of the same name (`COMMANDS`); their options are those of
`OPTIONS`.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import vaearr as va
from vaearr.cli.common import (
    Device,
    Overwrite,
    RunName,
    Store,
    Trust,
    app,
    folder_of,
    given,
    look,
    numbers,
    optional,
    print_lines,
    refuse,
    say,
    trusted_run,
)
from vaearr.errors import ExistsError, NoInputError, UsageError, did_you_mean
from vaearr.names import BC, DEFAULT_RUN

ENDINGS = {
    ".png": ".png or .pdf, the sheet",
    ".pdf": "",
    ".html": ".html, a page",
    ".npz": ".npz, the arrays",
    ".csv": ".csv, the table",
    ".gif": ".gif, an animation",
    "": "a name without ending: a folder for the sheet, the pictures and the latents",
}
PICTURES = (".png", ".pdf", ".html", ".npz")
SAMPLE = "number of a sample, X:Y[:Z] of a scan point, or file"

# Options of the methods of a run, by the name of their parameter.
OPTIONS: dict[str, Any] = {
    "a": optional(str, "--from", help=SAMPLE),
    "b": optional(str, "--to", help=SAMPLE),
    "base": optional(
        str,
        help="typical (default) or mean, typical:NAME or prototype:NAME of a class, X:Y[:Z] of a scan point, or "
        "number of a sample",
    ),
    "bins": optional(int, min=1, help="bins of each dimension"),
    "by": optional(str, help="map with the classes; default: label, phase or clusters"),
    "classes": optional(list[str], "--class", help="only this class of --by; repeatable"),
    "dims": optional(list[int], "--dim", min=0, help="latent dimension; repeatable"),
    "max_points": optional(int, min=1, help="use at most so many samples"),
    "method": optional(
        str, help="scatter: tsne (default), pca or umap; interpolate: lerp (default) or slerp"
    ),
    "n_samples": optional(int, "--n", min=1, help="number of samples; default: 16"),
    "neighbours": optional(int, min=2, help="UMAP: neighbours of a point; default: 15"),
    "perplexity": optional(float, help="t-SNE: about how many neighbours count; default: 30"),
    "points": optional(
        list[str], "--point", metavar="X:Y", help="in the plane, such as --point=-1:2; repeatable"
    ),
    "seed": optional(int, min=0, help="seed of random numbers; default: 0"),
    "source": optional(str, help="prior (default), or fitted: the Gaussian of the run's latents"),
    "space": optional(str, help="plane of two latents (default), pca, tsne or umap"),
    "span": optional(
        str, metavar="LOW:HIGH", help="to either side of the base, such as --span=-3:3"
    ),
    "steps": optional(
        int, min=0, help="pictures of each dimension, side or line; default: 9, of a manifold 15"
    ),
    "unit": optional(
        str, help="unit of --span: std of the aggregate posterior (default), or absolute"
    ),
    "store": Store,
    "run": RunName,
    "trust": Trust,
    "overwrite": Overwrite,
}
DEFAULTS = {"store": inspect.Parameter.empty, "run": DEFAULT_RUN, "overwrite": False}
DEFAULTS |= {"a": inspect.Parameter.empty, "b": inspect.Parameter.empty}

# Methods of a run: what their command does, its options, and the endings of --out.
COMMANDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "prototypes": ("Decode a typical sample and the mean of each class.", "by classes", PICTURES),
    "traverse": (
        "Move single latent dimensions and decode.",
        "dims base span steps unit by",
        (*PICTURES, ".gif"),
    ),
    "manifold": (
        "Decode a grid over two dimensions: the first --dim to the right, the second upwards.",
        "dims span steps base unit by",
        PICTURES,
    ),
    "line": (
        "Decode points, or a line, in a plane: of two latents, of PCA, t-SNE or UMAP.\n\nThe other dimensions keep the "
        "values of --base. PCA is inverted exactly; for t-SNE and UMAP the nearest sample is decoded.",
        "points space dims steps base by seed max_points perplexity",
        (*PICTURES, ".gif"),
    ),
    "interpolate": (
        "Decode the interpolation between two samples or files.",
        "a b steps method",
        (*PICTURES, ".gif", ""),
    ),
    "sample": ("Sample latents and decode them.", "n_samples seed source", (*PICTURES, "")),
    "scatter": (
        "Show samples in a plane by their latents, coloured by class.",
        "method seed max_points perplexity neighbours by",
        PICTURES,
    ),
    "pairs": (
        "Show each two of some latents: density and correlation.",
        "dims by max_points seed",
        PICTURES,
    ),
    "histograms": (
        "Show histograms of latents, one for each class.",
        "by classes dims bins",
        PICTURES,
    ),
    "activations": (
        "Show the latents of samples sorted by class.",
        "by classes dims max_points seed",
        PICTURES,
    ),
    "describe": (
        "Print count, mean, spread, quartiles and range of latents.",
        "",
        (".csv", ".npz"),
    ),
    "statistics": (
        "Show KL, active units, the aggregate posterior and the prior.",
        "",
        (*PICTURES, ".csv"),
    ),
}


def point_of(text: str) -> Any:
    """A scan point X:Y or X:Y:Z, the number of a sample, or else a file."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        return Path(text)
    return dict(zip("xyz", values, strict=False)) if len(values) > 1 else int(values[0])


def base_of(text: str) -> Any:
    """What `--base` names: a word, a scan point or the number of a sample."""
    point = point_of(text)
    return text if isinstance(point, Path) else point


READ: dict[str, Callable[[Any], Any]] = {
    "a": point_of,
    "b": point_of,
    "base": base_of,
    "span": lambda text: numbers(text, "--span", "LOW:HIGH"),
    "points": lambda texts: [numbers(text, "--point", "X:Y") for text in texts],
}


def add_command(name: str, words: str, options: list[str], endings: tuple[str, ...]) -> None:
    """Register a method of a run as a command of `look`, which prints the result and writes it to
    --out.
    """

    def call(
        store: str,
        run: str,
        trust: list[str] | None,
        out: Path | None,
        overwrite: bool,
        **options: Any,
    ) -> None:
        if out is not None:
            check_out(out, endings, overwrite)
        settings = {
            key: READ.get(key, lambda value: value)(value)
            for key, value in given(**options).items()
        }
        found = getattr(trusted_run(store, run, trust), name)(**settings)
        if out is not None:
            write(found, out, name, overwrite)
        print_lines(va.describe(found))

    help_of_out = "file to write: " + "; ".join(filter(None, map(ENDINGS.get, endings)))
    annotations = {**OPTIONS, "out": optional(Path, help=help_of_out)}
    parameters = [
        inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=DEFAULTS.get(key),
            annotation=annotations[key],
        )
        for key in [*options, "store", "run", "trust", "out", "overwrite"]
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
    look.command(name, help=words)(call)


for _name, (_words, _options, _endings) in COMMANDS.items():
    add_command(_name, _words, _options.split(), _endings)


# ---- what is written


def check_out(out: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    if out.suffix.lower() not in endings:
        raise UsageError(f"--out {out.name!r} must end in {', '.join(filter(None, endings))}.")
    if not out.parent.is_dir():
        raise NoInputError(f"there is no folder {out.parent}; create it first.")
    if out.suffix and out.exists() and not overwrite:
        raise ExistsError(
            f"{out} already exists; choose another name, or replace it with --overwrite."
        )


def write(found: Any, out: Path, name: str, overwrite: bool) -> None:
    """Write the view, an animation, the arrays or the table of a result, by the ending of `out`."""
    from vaearr.views import save
    from vaearr.views.paper import write_new
    from vaearr.views.pictures import frames, save_animation

    ending = out.suffix.lower()
    if ending == ".gif":
        refuse(
            found.sizes["step"] < 2,
            "an animation needs two points or more; give another --point or ending.",
        )
        save_animation(frames(found), out, overwrite=overwrite)
    elif ending == ".npz":
        write_new(out, arrays(found), overwrite)
    elif ending == ".csv":
        write_new(out, found.to_dataframe().to_csv(lineterminator="\n").encode(), overwrite)
    elif ending:
        save(found, out, overwrite=overwrite)
    else:
        write_folder(found, out, name)
    say(f"written: {out}")


def arrays(found: Any) -> bytes:
    """All variables and coordinates by their names as .npz; nothing is pickled."""
    import numpy as np

    values = {}
    for name, variable in found.variables.items():
        is_text = variable.dtype.kind in "OT"
        values[str(name)] = variable.values.astype(str) if is_text else variable.values
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **values)
    return data.getvalue()


def write_folder(found: Any, out: Path, name: str) -> None:
    """The sheet, single pictures, and the latents as a table with a row for each picture."""
    import numpy as np

    from vaearr.store.folders import staged
    from vaearr.views import save
    from vaearr.views.pictures import save_pictures

    with staged(out) as folder:
        save(found, folder / f"{name}.png")
        save_pictures(found["decoded"], folder, name)
        latents = found["latents"].values
        rows = latents.reshape(len(latents), -1)
        columns = ",".join(f"latent_{i}" for i in range(rows.shape[1]))
        np.savetxt(folder / "z.csv", rows, "%.9g", delimiter=",", header=columns, comments="")


# ---- maps and layers


@look.command()
def contrast(
    store: Store,
    variable: Annotated[str, typer.Option("--map", help="map to look at")] = BC,
    out: Annotated[
        Path | None, typer.Option(help="PNG or PDF with map, histogram and profiles")
    ] = None,
    width: Annotated[float, typer.Option(help="width of a bin of the histogram")] = 10.0,
    row: Annotated[
        list[float] | None, typer.Option(help="profile along the row at this y; repeatable")
    ] = None,
    column: Annotated[
        list[float] | None, typer.Option(help="profile along the column at this x; repeatable")
    ] = None,
    top: Annotated[
        float | None, typer.Option(help="percent of the points with the largest values")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help='points by a condition, such as "BC >= 45"')
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="CSV to write the points of --top or --where to")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Show histogram, profiles and selected points of band contrast or any other map."""
    from vaearr.analysis.side_maps import histogram, profile, top_percent, write_kept_coordinates
    from vaearr.schema import maps

    refuse(
        keep and (top is None) == (where is None),
        "--keep writes the points of --top or of --where; give one of them.",
    )
    if out is not None:
        check_out(out, (".png", ".pdf"), overwrite)
    ds = va.open_store(store, chunks=None)
    if variable not in maps(ds):
        raise NoInputError(f"{store} has no map {variable!r}.{did_you_mean(variable, maps(ds))}")
    da = ds[variable].load()
    counts = histogram(da, width)
    print_lines(va.describe(counts))
    selected = None
    if top is not None:
        selected = top_percent(da, top)
        attrs = selected.attrs
        typer.echo(
            f"the strongest {top:g} %: {attrs['n_kept']} points from {attrs['threshold']:g} on"
        )
    elif where is not None:
        selected = va.roi(ds, where=where)
        typer.echo(f"{where}: {selected.attrs['n']} points")
    if keep and selected is not None:
        say(f"their coordinates are in {write_kept_coordinates(ds, selected, keep)}")
    if out:
        from vaearr.views import save

        profiles = [profile(da, "y", y) for y in row or ()] + [
            profile(da, "x", x) for x in column or ()
        ]
        save(
            da,
            out,
            kind="contrast",
            histogram=counts,
            profiles=profiles,
            roi=selected,
            overwrite=overwrite,
        )
        say(f"written: {out}")


@look.command()
def layers(
    store: Store,
    run: RunName = DEFAULT_RUN,
    a: Annotated[str | None, typer.Option(help=f"first sample: {SAMPLE}")] = None,
    b: Annotated[str | None, typer.Option(help="second sample, given like --a")] = None,
    positive: Annotated[Path | None, typer.Option(help="folder of files, each a of a pair")] = None,
    negative: Annotated[
        Path | None, typer.Option(help="folder of files of the same names, each b of a pair")
    ] = None,
    top: Annotated[
        int, typer.Option(min=0, help="layers that are listed and whose maps are kept")
    ] = 10,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="leave out pairs that cannot be compared")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="folder for tables and pictures")] = None,
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Compare two samples layer by layer: how far apart a trained model's activations are.

    --a with --b, or --positive with --negative, name what is compared. --out writes layers.csv,
    top_layers.png, layer_curves.png, difference_maps.png, of many pairs pairs.csv, and the earlier
    programs' layer_differences.json or aggregated_results.json.
    """
    named = set(given(a=a, b=b, positive=positive, negative=negative))
    refuse(
        named not in ({"a", "b"}, {"positive", "negative"}),
        "name what is compared by either --a with --b, or --positive with --negative.",
    )
    from vaearr.analysis import layers as of
    from vaearr.output.layer_files import write_layer_files

    opened = trusted_run(store, run, trust, device=device)
    left_out: list[str] = []
    if a is not None and b is not None:
        first, second = (of.sample_of(opened.ds, point_of(text)) for text in (a, b))
        found = opened.layers(first, second, top=top)
    else:
        assert positive is not None
        assert negative is not None
        pairs, alone = of.pairs_of_folders(opened.ds, positive, negative, skip_bad=skip_bad)
        found = opened.layers(pairs=pairs, top=top, skip_bad=skip_bad)
        left_out = [*(f"{file} has no partner" for file in alone), *found.attrs["failed"]]
    found.attrs.update(opened.result_attrs)
    with folder_of(out) as folder:
        if folder:
            write_layer_files(found, folder)
    for words in left_out:
        say(f"left out: {words}")
    print_lines(va.describe(found))


app.add_typer(
    look, name="look", short_help="Pictures and numbers of a latent space: vaearr look --help"
)
