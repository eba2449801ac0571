"""`vaearr look …`: what a latent space decodes to, how the latents are distributed, and comparisons of layers.

Most commands call a function of `va.explore`. What they share, the store, the run and what becomes of the result, is
added by `look_command`.
"""

from __future__ import annotations

import functools
import inspect
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import vaearr as va
from vaearr.cli.common import (
    AsJson,
    Device,
    Overwrite,
    RunName,
    Seed,
    Store,
    Trust,
    app,
    folder_of,
    given,
    look,
    numbers,
    print_lines,
    refuse,
    say,
    trusted_run,
)
from vaearr.errors import ExistsError, NoInputError, UsageError, did_you_mean, need
from vaearr.names import BC, DEFAULT_RUN

PICTURES = (".png", ".pdf", ".html", ".npz")
TABLES = (".csv", ".parquet")
ANIMATION = (".gif",)
MAX_FILES = 1000  # single pictures in a folder

ENDINGS = {
    ".png": ".png or .pdf, the sheet",
    ".html": ".html, a page",
    ".npz": ".npz, the arrays",
    ".csv": ".csv or .parquet, the table",
    ".gif": ".gif, an animation",
}

Dims = Annotated[list[int] | None, typer.Option("--dim", min=0, help="latent dimension; repeatable")]
Base = Annotated[
    str | None,
    typer.Option(
        help="typical (default) or mean, typical:NAME or prototype:NAME of a class, X:Y[:Z] of a scan point, or the "
        "number of a sample"
    ),
]
By = Annotated[str | None, typer.Option(help="map with the classes; default: label, phase or clusters")]
Classes = Annotated[list[str] | None, typer.Option("--class", help="only this class of --by; repeatable")]
Span = Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="to either side of the base, such as --span=-3:3")]
Unit = Annotated[str | None, typer.Option(help="unit of --span: std of the aggregate posterior (default), or absolute")]
Steps = Annotated[
    int | None, typer.Option(min=0, help="pictures of each dimension, side or line; default: 9, of a manifold 15")
]
Bins = Annotated[int | None, typer.Option(min=1, help="bins of each dimension")]
MaxPoints = Annotated[int | None, typer.Option(min=1, help="use at most so many samples")]
Perplexity = Annotated[float | None, typer.Option(help="t-SNE: about how many neighbours count; default: 30")]


@dataclass(frozen=True)
class Result:
    """What a command found: a Dataset, and what makes its table."""

    found: Any
    table: Callable[[], Any] | None = None


def look_command(*more: str, folder: str | None = None) -> Callable[[Callable[..., Result]], Callable[..., None]]:
    """Register a function of a run as a command of `look`, which prints the result and writes it to --out.

    more: further endings of --out than those of pictures. folder: name of the sheet; --out without such an ending is a
    folder, for the sheet, the single pictures and the latents.
    """
    endings = (*PICTURES, *more)
    words = "; ".join(text for ending, text in ENDINGS.items() if ending in endings)
    if folder:
        words += "; any other name: a folder for the sheet, the pictures and the latents"
    shared = {
        "store": (Store, inspect.Parameter.empty),
        "run": (RunName, DEFAULT_RUN),
        "trust": (Trust, None),
        "out": (Annotated[Path | None, typer.Option(help=f"file to write: {words}")], None),
        "overwrite": (Overwrite, False),
    }

    def register(function: Callable[..., Result]) -> Callable[..., None]:
        @functools.wraps(function)
        def call(
            store: str, run: str, trust: list[str] | None, out: Path | None, overwrite: bool, **options: Any
        ) -> None:
            if out is not None:
                check_out(out, endings, overwrite, is_folder_allowed=folder is not None)
            result = function(trusted_run(store, run, trust), **options)
            if out is None:
                pass
            elif folder and out.suffix.lower() not in endings:
                write_folder(result.found, out, folder)
            else:
                write_file(result, out, overwrite)
            print_lines(va.describe(result.found), warnings_aside=True)

        signature = inspect.signature(function, eval_str=True)
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()][1:]
        for name, (annotation, default) in shared.items():
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
        return look.command()(call)

    return register


@look_command()
def prototypes(run: Any, by: By = None, classes: Classes = None) -> Result:
    """Decode a typical sample and the mean of each class."""
    return Result(va.explore.prototypes(run, **given(by=by, classes=classes)))


@look_command(*ANIMATION)
def traverse(
    run: Any,
    dims: Dims = None,
    base: Base = None,
    span: Span = None,
    steps: Steps = None,
    unit: Unit = None,
    by: By = None,
) -> Result:
    """Move single latent dimensions and decode."""
    options = given(dims=dims, base=base_of(base), span=span_of(span), steps=steps, unit=unit, by=by)
    return Result(va.explore.traverse(run, **options))


@look_command()
def manifold(
    run: Any,
    dims: Dims = None,
    span: Span = None,
    steps: Steps = None,
    base: Base = None,
    unit: Unit = None,
    by: By = None,
) -> Result:
    """Decode a grid over two dimensions: the first --dim to the right, the second upwards."""
    options = given(dims=dims, span=span_of(span), steps=steps, base=base_of(base), unit=unit, by=by)
    return Result(va.explore.manifold(run, **options))


@look_command(*ANIMATION)
def path(
    run: Any,
    points: Annotated[
        list[str] | None, typer.Option("--point", metavar="X:Y", help="in the plane, such as --point=-1:2; repeatable")
    ] = None,
    space: Annotated[str | None, typer.Option(help="plane of two latents (default), pca, tsne or umap")] = None,
    dims: Dims = None,
    steps: Steps = None,
    base: Base = None,
    by: By = None,
    seed: Seed = 0,
    max_points: MaxPoints = None,
    perplexity: Perplexity = None,
) -> Result:
    """Decode points, or a line, in a plane: of two latents, of PCA, t-SNE or UMAP.

    The other dimensions keep the values of --base. PCA is inverted exactly; for t-SNE and UMAP the nearest sample is
    decoded.
    """
    places = [numbers(text, "--point", "X:Y") for text in points or ()]
    options = given(points=places, space=space, dims=dims, steps=steps, base=base_of(base), by=by)
    options |= given(max_points=max_points, perplexity=perplexity)
    return Result(va.explore.path(run, seed=seed, **options))


@look_command(*ANIMATION, folder="interpolation")
def interpolate(
    run: Any,
    a: Annotated[str, typer.Option("--from", help="file, X:Y[:Z] of a scan point, or number of a sample")],
    b: Annotated[str, typer.Option("--to", help="file, X:Y[:Z] of a scan point, or number of a sample")],
    steps: Steps = None,
    method: Annotated[str | None, typer.Option(help="lerp (default) or slerp")] = None,
) -> Result:
    """Decode the interpolation between two samples or files."""
    return Result(va.interpolate(run, a=point_of(a), b=point_of(b), **given(steps=steps, method=method)))


@look_command(folder="samples")
def sample(
    run: Any,
    n_samples: Annotated[int, typer.Option("--n", min=1, help="number of samples")] = 16,
    seed: Seed = 0,
    source: Annotated[
        str | None, typer.Option(help="prior (default), or fitted: the Gaussian of the run's latents")
    ] = None,
) -> Result:
    """Sample latents and decode them."""
    return Result(va.sample_prior(run, n_samples=n_samples, seed=seed, **given(source=source)))


@look_command(*TABLES)
def scatter(
    run: Any,
    method: Annotated[str | None, typer.Option(help="tsne (default), pca or umap")] = None,
    seed: Seed = 0,
    max_points: MaxPoints = None,
    perplexity: Perplexity = None,
    neighbours: Annotated[int | None, typer.Option(min=1, help="UMAP: neighbours of a point; default: 15")] = None,
    by: By = None,
    color: Annotated[
        list[str] | None, typer.Option(help="further colours: latent:N or a map such as BC; repeatable")
    ] = None,
) -> Result:
    """Show samples in a plane by their latents, coloured by class and by --color."""
    options = given(method=method, max_points=max_points, perplexity=perplexity, neighbours=neighbours)
    found = va.explore.embedding(run, seed=seed, **options, **given(by=by, color=color))
    return Result(found, lambda: wide(found, "position", "amount"))


@look_command()
def pairs(
    run: Any, dims: Dims = None, bins: Bins = None, by: By = None, max_points: MaxPoints = None, seed: Seed = 0
) -> Result:
    """Show each two of some latents: density and correlation."""
    return Result(va.explore.pairs(run, seed=seed, **given(dims=dims, bins=bins, by=by, max_points=max_points)))


@look_command()
def histograms(run: Any, by: By = None, classes: Classes = None, dims: Dims = None, bins: Bins = None) -> Result:
    """Show histograms of latents, one for each class."""
    return Result(va.explore.histograms(run, **given(by=by, classes=classes, dims=dims, bins=bins)))


@look_command(*TABLES)
def activations(
    run: Any,
    by: By = None,
    classes: Classes = None,
    dims: Dims = None,
    max_points: MaxPoints = None,
    seed: Seed = 0,
) -> Result:
    """Show the latents of samples sorted by class; the table has a row for every sample."""
    chosen = given(classes=classes, dims=dims)
    found = va.explore.activations(run, seed=seed, **given(by=by, max_points=max_points), **chosen)
    return Result(found, lambda: va.explore.activation_table(run, by=[by] if by else None, **chosen))


@look_command(*TABLES)
def describe(run: Any) -> Result:
    """Print count, mean, spread, quartiles and range of latents."""
    found = va.explore.latent_table(run)
    return Result(found, lambda: wide(found, "summary"))


@look_command(*TABLES)
def components(
    run: Any,
    n_components: Annotated[
        int | None, typer.Option("--components", min=1, help="number of components; default: all, at most 64")
    ] = None,
    max_points: MaxPoints = None,
    seed: Seed = 0,
) -> Result:
    """Show the principal components of the latents."""
    found = va.explore.latent_pca(run, seed=seed, **given(n_components=n_components, max_points=max_points))
    variance = "explained_variance"
    return Result(found, lambda: wide(found, variance, f"{variance}_ratio", f"{variance}_cumulative", "loadings"))


@look_command(*TABLES)
def health(run: Any, seed: Seed = 0) -> Result:
    """Show KL, active units, the aggregate posterior and the prior."""
    found = va.explore.health(run, seed=seed)
    columns = ("kl", "is_active", "aggregate_mean", "aggregate_std", "aggregate_kl", "wasserstein")
    return Result(found, lambda: wide(found, *columns))


@look_command()
def stats(run: Any) -> Result:
    """Keep the latents' statistics as a table of the run."""
    return Result(va.latent_statistics(run, write=True))


# ---- what options name, and what is written


def point_of(text: str) -> Any:
    """A scan point X:Y or X:Y:Z, the number of a sample, or else a file."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        return Path(text)
    if len(values) > 1:
        return dict(zip("xyz", values, strict=False))
    return int(values[0]) if values[0].is_integer() else values[0]


def base_of(text: str | None) -> Any:
    """What `--base` names: a word, a scan point or the number of a sample."""
    if text is None:
        return None
    point = point_of(text)
    return text if isinstance(point, Path) else point


def span_of(text: str | None) -> tuple[float, ...] | None:
    return None if text is None else numbers(text, "--span", "LOW:HIGH")


def check_out(out: Path, endings: tuple[str, ...], overwrite: bool, *, is_folder_allowed: bool = False) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    ending = out.suffix.lower()
    if ending not in endings:
        if is_folder_allowed and ending not in (*PICTURES, *TABLES, *ANIMATION):
            return
        raise UsageError(f"--out {out.name!r} must end in {', '.join(endings[:-1])} or {endings[-1]}.")
    if ending == ".parquet":
        need("pyarrow", "vaearr[parquet]", out.name)
    if not out.parent.is_dir():
        raise NoInputError(f"there is no folder {out.parent}; create it first.")
    if out.exists() and not overwrite:
        raise ExistsError(f"{out} already exists; choose another name, or replace it with --overwrite.")


def write_file(result: Result, out: Path, overwrite: bool) -> None:
    """Write the table, an animation, the arrays or the view of a result, by the ending of `out`."""
    from vaearr.views import save
    from vaearr.views.paper import write_new
    from vaearr.views.pictures import frames, save_animation

    found = result.found
    ending = out.suffix.lower()
    if ending == ".gif":
        refuse(found.sizes["step"] < 2, "an animation needs two points or more; give another --point or ending.")
        save_animation(frames(found), out, overwrite=overwrite)
    elif ending == ".npz":
        write_new(out, arrays(found), overwrite)
    elif ending in TABLES and result.table is not None:
        table = result.table()
        if ending == ".csv":
            data = table.to_csv(index=False, lineterminator="\n").encode()
        else:
            data = table.to_parquet(index=False, engine="pyarrow")
        write_new(out, data, overwrite)
    else:
        origin = f"Run {found.attrs.get('run')!r}"
        weights = found.attrs.get("weights_sha256")
        if weights:
            origin += f", weights {weights[:12]}"
        save(found, out, sentences=[f"{origin}."], overwrite=overwrite)
    say(f"written: {out}")


def wide(found: Any, *variables: str) -> Any:
    """A row for each label of the first dim, and a column for each entry of the others."""
    import numpy as np

    names = [name for name in variables if name in found]
    dim = found[names[0]].dims[0]
    others = [other for other in found[names].dims if other != dim]
    table = found[names].drop_dims(others)
    for name in names:
        values = found[name].transpose(dim, ...)
        if values.ndim == 1:
            continue
        for entry in np.ndindex(values.shape[1:]):
            label = values[values.dims[1]].values[entry[0]]
            column = label if isinstance(label, str) else f"{values.dims[1]}_{'_'.join(map(str, entry))}"
            table[str(column)] = (dim, values.values[(slice(None), *entry)])
    if "class" in table.coords and "flag_meanings" in table["class"].attrs:
        attrs = table["class"].attrs
        class_names = dict(zip(attrs["flag_values"], attrs["flag_meanings"], strict=True))
        table["class_name"] = (dim, [class_names[int(code)] for code in table["class"].values])
    return table.reset_coords().to_dataframe().reset_index(drop=dim not in found.coords)


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
    """The sheet, single pictures or an animation of an interpolation, and the latents."""
    import numpy as np

    from vaearr.store.folders import staged
    from vaearr.views import save
    from vaearr.views.pictures import frames, save_animation, save_pictures

    with staged(out) as folder:
        save(found, folder / f"{name}.png")
        if "step" in found.dims:
            save_animation(frames(found), folder / f"{name}.gif")
        else:
            save_pictures(found["decoded"].isel(sample=slice(MAX_FILES)), folder, "sample")
        latents = found["latents"].drop_vars(found["latents"].coords)
        if latents.ndim > 2:
            np.save(folder / "z.npy", latents.values, allow_pickle=False)
        else:
            table = wide(latents.to_dataset(), "latents")
            table.to_csv(folder / "z.csv", index=False, lineterminator="\n")
    say(f"files are in {out}")


# ---- maps and layers


@look.command()
def contrast(
    store: Store,
    variable: Annotated[str, typer.Option("--map", help="map to look at")] = BC,
    out: Annotated[Path | None, typer.Option(help="PNG or PDF with map, histogram and profiles")] = None,
    width: Annotated[float, typer.Option(help="width of a bin of the histogram")] = 10.0,
    row: Annotated[list[float] | None, typer.Option(help="profile along the row at this y; repeatable")] = None,
    column: Annotated[list[float] | None, typer.Option(help="profile along the column at this x; repeatable")] = None,
    top: Annotated[float | None, typer.Option(help="percent of the points with the largest values")] = None,
    where: Annotated[str | None, typer.Option(help='points by a condition, such as "BC >= 45"')] = None,
    keep: Annotated[Path | None, typer.Option(help="CSV to write the points of --top or --where to")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Show histogram, profiles and selected points of band contrast or any other map."""
    from vaearr.analysis.side_maps import histogram, profile, top_percent, write_kept_coordinates
    from vaearr.schema import maps

    is_one_selection = (top is None) != (where is None)
    refuse(keep and not is_one_selection, "--keep writes the points of --top or of --where; give one of them.")
    if out is not None:
        check_out(out, (".png", ".pdf"), overwrite)
    ds = va.open_store(store, chunks=None)
    if variable not in maps(ds):
        raise NoInputError(f"{store} has no map {variable!r}.{did_you_mean(variable, maps(ds))}")
    da = ds[variable].load()
    counts = histogram(da, width)
    profiles = [profile(da, y=y) for y in row or ()] + [profile(da, x=x) for x in column or ()]
    print_lines(va.describe(counts))
    selected = None
    if top is not None:
        selected = top_percent(da, top)
        attrs = selected.attrs
        typer.echo(f"the strongest {top:g} %: {attrs['n_kept']} points from {attrs['threshold']:g} on")
    elif where is not None:
        selected = va.roi(ds, where=where)
        typer.echo(f"{where}: {selected.attrs['n']} points")
    if keep and selected is not None:
        say(f"their coordinates are in {write_kept_coordinates(ds, selected, keep)}")
    if out:
        from vaearr.views import save

        save(da, out, kind="contrast", histogram=counts, profiles=profiles, roi=selected, overwrite=overwrite)
        say(f"written: {out}")


@look.command()
def layers(
    store: Store,
    run: RunName = DEFAULT_RUN,
    a: Annotated[
        str | None, typer.Option(help="first sample: file, X:Y[:Z] of a scan point, or number of a sample")
    ] = None,
    b: Annotated[str | None, typer.Option(help="second sample, given like --a")] = None,
    positive: Annotated[Path | None, typer.Option(help="folder of files, each a of a pair")] = None,
    negative: Annotated[Path | None, typer.Option(help="folder of files of the same names, each b of a pair")] = None,
    part: Annotated[str, typer.Option(help="both, encoder or decoder")] = "both",
    level: Annotated[str, typer.Option(help="leaf: every single layer; block: residual blocks and the like")] = "leaf",
    top: Annotated[int, typer.Option(min=0, help="layers that are listed and whose maps are kept")] = 10,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out pairs that cannot be compared")] = False,
    out: Annotated[Path | None, typer.Option(help="folder for tables and pictures")] = None,
    seed_files: Annotated[
        bool, typer.Option("--seed-files", help="--out: also the JSON files of the earlier programs")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="keep the result as a table of the run")] = False,
    overwrite: Overwrite = False,
    name: Annotated[str, typer.Option(help="--keep: name of the table")] = "layers",
    device: Device = "auto",
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Compare two samples layer by layer: how far apart a trained model's activations are.

    --a with --b, or --positive with --negative, name what is compared. --out writes layers.csv, layers.json,
    top_layers.png, layer_curves.png, difference_maps.png, and pairs.csv of many pairs.
    """
    options = given(a=a, b=b, positive=positive, negative=negative)
    compared = {key: str(value) for key, value in options.items()}
    is_two_samples = set(compared) == {"a", "b"}
    is_two_folders = set(compared) == {"positive", "negative"}
    refuse(
        not (is_two_samples or is_two_folders),
        "name what is compared by either --a with --b, or --positive with --negative.",
    )
    refuse(seed_files and out is None, "--seed-files writes files; name their folder with --out FOLDER.")
    from vaearr.analysis import layers as of
    from vaearr.output.exporting.layer_files import layer_summary, write_layer_files
    from vaearr.output.exporting.seed import write_layer_differences
    from vaearr.recipe import as_json as plain
    from vaearr.run import open_run

    opened = open_run(trusted_run(store, run, trust, device=device))
    without_partner: list[str] = []
    if positive is None or negative is None:
        first, second = (of.sample_of(opened.ds, point_of(compared[side])) for side in "ab")
        found = va.compare_layers(opened.model, first, second, part=part, level=level, top=top)
    else:
        pairs, without_partner = of.pairs_of_folders(opened.ds, positive, negative, skip_bad=skip_bad)
        found = va.compare_pairs(opened.model, pairs, skip_bad=skip_bad, part=part, level=level, top=top)
    found.attrs.update(opened.attrs, unpaired=without_partner, samples=compared)
    if keep:
        of.keep_layers(store, run, found, name=name, about=compared, overwrite=overwrite)
        say(f"the comparison is kept as table {name!r} of run {run!r}")
    with folder_of(out) as folder:
        if folder:
            write_layer_files(found, folder)
            if seed_files:
                write_layer_differences(found, folder)
    for file in without_partner:
        say(f"left out: {file} has no partner")
    for reason in found.attrs.get("failed", ()):
        say(f"left out: {reason}")
    if as_json:
        print_lines([json.dumps(plain(layer_summary(found)), indent=2, ensure_ascii=False, allow_nan=False)])
    else:
        print_lines(va.describe(found))


app.add_typer(look, name="look", short_help="Pictures and numbers of a latent space: vaearr look --help")
