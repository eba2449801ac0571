"""`vaearr look …`: what classes, dimensions, planes and single latents decode to, and how the latents lie.

Most are a function of `vaearr.exploration`: which options it has, how it is shown in --out, and what is said of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from vaearr.cli.common import (
    RunName,
    Seed,
    Store,
    box,
    folder_of,
    look,
    number_pairs,
    print_lines,
    say,
    table_lines,
    with_options,
)
from vaearr.errors import ExistsError, NoInputError, UsageError, did_you_mean, need
from vaearr.names import BC, DEFAULT_RUN

if TYPE_CHECKING:
    import xarray as xr

SHEET, TABLE, FILM = (".png", ".pdf", ".html", ".npz"), (".csv", ".parquet"), (".gif",)
FILE_MOST = 1000  # single pictures of draws
Folder = Annotated[Path | None, typer.Option(help="folder to write pictures and tables into")]

Numbers, Texts = list[int] | None, list[str] | None
OPTIONS: dict[str, Any] = {  # by the parameter of the functions in `vaearr.exploration`
    "dims": Annotated[Numbers, typer.Option("--dim", help="latent dimension; repeat")],
    "base": Annotated[
        str | None, typer.Option(help="mean, prototype:NAME, X:Y[:Z] of a scan point, or the number of a sample")
    ],
    "by": Annotated[str | None, typer.Option(help="map with the classes; default: label, phase or clusters")],
    "classes": Annotated[Texts, typer.Option("--class", help="only samples of this class of --by; repeat")],
    "span": Annotated[str | None, typer.Option(help="LOW:HIGH to either side of the base, write --span=-3:3")],
    "unit": Annotated[str | None, typer.Option(help="of --span: std of the aggregate posterior, or absolute")],
    "steps": Annotated[int | None, typer.Option(help="pictures of each dimension, side or line")],
    "points": Annotated[Texts, typer.Option("--point", help="X:Y in the plane, write --point=-1:2; repeat")],
    "space": Annotated[str | None, typer.Option(help="plane of two latents, pca, tsne or umap")],
    "method": Annotated[str | None, typer.Option(help="pca, tsne or umap")],
    "color": Annotated[Texts, typer.Option("--color", help="once more by latent:N or a map such as BC; repeat")],
    "bins": Annotated[int | None, typer.Option(help="of each dimension; by the number of samples, at most 50")],
    "count": Annotated[int | None, typer.Option("--n", help="number of samples")],
    "n_components": Annotated[int | None, typer.Option("--components", help="number of components; all, at most 64")],
    "max_points": Annotated[int | None, typer.Option(help="samples at most")],
    "perplexity": Annotated[float | None, typer.Option(help="of t-SNE: about how many neighbours count")],
    "neighbours": Annotated[int | None, typer.Option(help="of UMAP")],
    "pooled": Annotated[
        bool | None, typer.Option("--pooled", help="spatial latents: one mean for each dimension, as where a mask is")
    ],
    "seed": Annotated[int | None, typer.Option(min=0, help="seed of whatever is drawn or chosen")],
}


class WithDefaults(typer.core.TyperCommand):
    """A command whose help tells the defaults of the function behind it, which is imported then."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        known = inspect.signature(_exploration(str(self.context_settings["obj"]))).parameters
        for option in self.params:
            usual = known[option.name].default if option.name in OPTIONS and option.name in known else None
            if usual not in (None, (), False):
                words = ":".join(f"{end:g}" for end in usual) if isinstance(usual, tuple) else usual
                option.help = f"{option.help} [default: {words}]"  # type: ignore[attr-defined]
        super().format_options(ctx, formatter)


def explores(
    name: str,
    options: str,
    heading: str,
    *,
    table: Callable[[xr.Dataset], Any] | None = None,
    film: bool = False,
    find: Callable[..., Any] | None = None,
) -> Callable[[Callable[[xr.Dataset], Iterable[str]]], Any]:
    """A command around a function of `vaearr.exploration`: its options, its result in --out, and in words.

    table: of the result, for .csv and .parquet. film: whether it can be an animation. find: called instead of the
    function of that name, whose defaults are those of the options; it may give options of the view too.
    """
    endings = (*SHEET, *(TABLE if table else ()), *(FILM if film else ()))
    words = "; .csv, .parquet" * bool(table) + "; .gif, an animation" * film
    out_option = typer.Option(help=f"file to write: .png or .pdf, the sheet; .html, a page; .npz, the arrays{words}")
    chosen = {option: OPTIONS[option] for option in options.split()} | {"out": Annotated[Path | None, out_option]}

    def wrap(in_words: Callable[[xr.Dataset], Iterable[str]]) -> Callable[..., None]:
        def call(store: Store, run: RunName = DEFAULT_RUN, out: Path | None = None, **given: Any) -> None:
            _check_out(out, endings)
            said = {key: READ.get(key, _as_it_is)(value) for key, value in given.items() if value not in (None, [])}
            made = (find or _exploration(name))(store, run, **said)
            found, beside = made if isinstance(made, tuple) else (made, {})
            lines = [*in_words(found)]
            if out is not None:
                _write(found, out, heading, table, beside)
                say(f"written: {out}")
            print_lines(lines)
            for warning in found.attrs.get("warnings", ()):
                say(f"warning: {warning}")

        own = inspect.signature(call, eval_str=True)
        call.__signature__ = with_options(own, chosen, "out", "given")  # type: ignore[attr-defined]
        call.__doc__ = in_words.__doc__
        look.command(in_words.__name__, cls=WithDefaults, context_settings={"obj": name})(call)
        return call

    return wrap


def _exploration(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module("vaearr.exploration"), name)
    return function


def _check_out(out: Path | None, endings: tuple[str, ...]) -> None:
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


def _write(
    found: xr.Dataset, out: Path, heading: str, table: Callable[[xr.Dataset], Any] | None, beside: dict[str, Any]
) -> None:
    """Write what was found by the ending of `out`: its table, an animation, its arrays, or its view."""
    ending = out.suffix.lower()
    if ending in TABLE and table:
        from vaearr.exploration import save_table

        save_table(table(found), out)
    elif ending in FILM:
        from vaearr.views.pictures import frames, save_animation

        if found.sizes["step"] < 2:
            raise UsageError("an animation needs two points or more; give another --point, or another ending.")
        save_animation(frames(found), out)
    elif ending == ".npz":
        _arrays(found, out)
    else:
        from vaearr.views import save

        weights = found.attrs.get("weights_sha256")
        origin = f"Run {found.attrs.get('run')!r}" + (f", weights {weights[:12]}." if weights else ".")
        save(found, out, heading=heading, sentences=[origin], **beside)


def _arrays(found: xr.Dataset, out: Path) -> None:
    """All arrays and coordinates by their names; texts as such, nothing pickled."""
    import numpy as np

    values = {str(name): variable.values for name, variable in found.variables.items()}
    part = out.with_name(f".{out.stem}.part.npz")
    try:
        np.savez_compressed(
            part, allow_pickle=False, **{k: v.astype(str) if v.dtype.kind in "OT" else v for k, v in values.items()}
        )
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _row(values: Any) -> str:
    """Numbers beside each other."""
    return " ".join(f"{float(value):.4g}" for value in values)


def point_of(text: str, option: str) -> Any:
    """`X:Y`, `X:Y:Z` or the number of a sample."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) == 1:
        return int(values[0]) if values[0].is_integer() else values[0]
    if len(values) not in (2, 3):
        raise UsageError(f"{option} {text!r} is not X:Y, X:Y:Z or the number of a sample.")
    return dict(zip("xyz", values, strict=False))


def _base(text: str) -> Any:
    """What `--base` names: a word, a scan point or the number of a sample."""
    is_named = text == "mean" or text.startswith("prototype:") or (not text[:1].isdigit() and text[:1] not in "-.")
    return text if is_named else point_of(text, "--base")


READ: dict[str, Callable[[Any], Any]] = {
    "base": _base,
    "span": lambda text: box(text, "--span", "LOW:HIGH"),
    "points": lambda texts: number_pairs(texts, "--point"),
}


def _as_it_is(value: Any) -> Any:
    return value


@explores("prototypes", "by", "Prototypes")
def prototypes(ds: xr.Dataset) -> Iterator[str]:
    """Mean latents of each class and what they decode to."""
    from vaearr.exploration.points import pooled

    if ds.attrs["empty"]:
        say(f"without an encoded sample: {', '.join(ds.attrs['empty'])}")
    yield from _means(ds, pooled(ds["latents"].values))


def _means(ds: xr.Dataset, means: Any) -> Iterator[str]:
    """A line for each class: how many, and their mean latents."""
    for name, count, vector in zip(ds["class"].values, ds["n"].values, means, strict=True):
        yield f"{name}: n {int(count)}, {_row(vector)}"


@explores(
    "traverse",
    "dims base by span unit steps",
    "Traversals",
    film=True,
)
def traverse(ds: xr.Dataset) -> Iterator[str]:
    """Move one latent dimension after another and decode; all of them, or those of --dim."""
    yield f"from {ds.attrs['base']}"
    for i, values in zip(ds["latent_dim"].values, ds["value"].values, strict=True):
        yield f"latent {i}: {values[0]:.4g} to {values[-1]:.4g} in {len(values)} steps"


@explores(
    "manifold",
    "dims base by span unit steps",
    "Plane of two latents",
)
def manifold(ds: xr.Dataset) -> Iterator[str]:
    """Decode a grid over two latent dimensions: the first --dim to the right, the second upwards (default 0 and 1)."""
    for axis in ("column", "row"):
        values = ds[axis].values
        yield f"{axis}s: {ds[axis].attrs['long_name']} from {values[0]:.4g} to {values[-1]:.4g}"


@explores(
    "path",
    "points space dims steps base by seed max_points perplexity",
    "Path",
    film=True,
)
def path(ds: xr.Dataset) -> Iterator[str]:
    """Decode points, or a line, in a plane: of two latents (--dim, default 0 and 1), of PCA, t-SNE or UMAP.

    The others keep the values of --base; PCA is inverted exactly; for t-SNE and UMAP the nearest sample is decoded.
    """
    yield f"{', '.join(map(str, ds['axis'].values))}; others: {ds.attrs['base']}"
    latents = ds["latents"].values.reshape(ds.sizes["step"], ds.sizes["latent"], -1).mean(-1)
    for i, (where, z) in enumerate(zip(ds["position"].values, latents, strict=True), 1):
        yield f"{i} at {_row(where)}: {_row(z)}"


def _positions(found: xr.Dataset) -> Any:
    """A row for each point: coordinates, class with its name, position, amounts."""
    table = found.drop_dims([d for d in found.dims if d not in ("point", "axis", "color")])
    wide = table.drop_vars(["position", "amount"], errors="ignore").drop_vars(["axis", "color"], errors="ignore")
    for name, dim in (("position", "axis"), ("amount", "color")):
        if name in table:
            for i, label in enumerate(table[dim].values):
                wide[str(label)] = ("point", table[name].transpose(dim, "point").values[i])
    if "class" in found.coords:
        attrs = found["class"].attrs
        words = dict(zip(attrs["flag_values"], attrs["flag_meanings"], strict=True))
        wide["class_name"] = ("point", [words[int(code)] for code in found["class"].values])
    return wide.reset_coords().to_dataframe().reset_index(drop=True)


@explores(
    "embedding",
    "method color by seed max_points perplexity neighbours pooled",
    "Samples in a plane",
    table=_positions,
)
def scatter(ds: xr.Dataset) -> Iterator[str]:
    """Samples in a plane by their latents (PCA, t-SNE, UMAP), coloured by class and by --color; nothing is stored."""
    from vaearr.views.spread import embedding_words

    yield embedding_words(ds)


@explores(
    "pairs",
    "dims by bins max_points seed",
    "Pairs of latents",
)
def pairs(ds: xr.Dataset) -> Iterator[str]:
    """Every two of some latent dimensions: densities, histograms, correlation; the six widest, or those of --dim."""
    place = {int(d): i for i, d in enumerate(ds["latent"].values)}
    pair = [(int(x), int(y)) for x, y in zip(ds["x_dim"].values, ds["y_dim"].values, strict=True)]
    r = {(x, y): float(ds["correlation"].values[place[x], place[y]]) for x, y in pair}
    for x, y in sorted(r, key=lambda xy: -abs(r[xy])):
        yield f"latent {x}, latent {y}: r = {r[x, y]:.3f}"


@explores(
    "histograms",
    "dims by classes bins",
    "Histograms of latents",
)
def histograms(ds: xr.Dataset) -> Iterator[str]:
    """Histogram of each latent dimension; with --by or --class, one for each class."""
    for i, edges in zip(ds["latent"].values, ds["edges"].values, strict=True):
        yield f"latent {i}: {edges[0]:.4g} to {edges[-1]:.4g}, {ds.attrs['n']} samples"
    if "class" in ds.coords:
        counts = ds["counts"].isel(latent=0).sum("bin").values
        for name, count in zip(ds["class"].values, counts, strict=True):
            yield f"{name}: {int(count)} samples"


def _activations(store: str, run: str, **given: Any) -> xr.Dataset:
    """With a function for the table of every sample, which is made for a file only."""
    from vaearr import exploration

    chosen = {key: value for key, value in given.items() if key in ("classes", "dims")}
    by = [given["by"]] if "by" in given else None
    found = exploration.activations(store, run, **given)
    found.encoding["table"] = lambda: exploration.activation_table(store, run, by, **chosen)
    return found


@explores(
    "activations",
    "by classes dims max_points seed",
    "Activations",
    table=lambda ds: ds.encoding["table"](),
    find=_activations,
)
def activations(ds: xr.Dataset) -> Iterator[str]:
    """Latents of samples sorted by class, and the mean of each class; .csv and .parquet hold every sample."""
    yield f"{ds.attrs['n']} samples"
    if "class_mean" in ds:
        yield from _means(ds, ds["class_mean"].values)


@explores(
    "latent_table",
    "",
    "Latents",
    table=lambda ds: ds["summary"].to_dataset("statistic").to_dataframe().reset_index(),
)
def describe(ds: xr.Dataset) -> list[str]:
    """Count, mean, spread, quartiles and range of each latent dimension."""
    return table_lines(dict(zip(ds["latent"].values, ds["summary"].values, strict=True)), ds["statistic"].values, 10)


def _loadings(found: xr.Dataset) -> Any:
    """A row for each component: explained variance, then its loadings."""
    import numpy as np

    names = ["explained_variance", "explained_variance_ratio", "explained_variance_cumulative"]
    table = found[names].to_dataframe().reset_index()
    flat = found["loadings"].values.reshape(len(table), -1)
    for i, place in enumerate(np.ndindex(*found["loadings"].shape[1:])):
        table[f"latent_{'_'.join(map(str, place))}"] = flat[:, i]
    return table


@explores(
    "latent_pca",
    "n_components pooled max_points seed",
    "Principal components of the latents",
    table=_loadings,
)
def components(ds: xr.Dataset) -> Iterator[str]:
    """Principal components of the latents: loadings and explained variance (those of the patterns: vaearr embed)."""
    shares = zip(ds["explained_variance_ratio"].values, ds["explained_variance_cumulative"].values, strict=True)
    for i, (share, total) in enumerate(shares, 1):
        yield f"component {i}: {share:.2%} of the variance, {total:.2%} so far"


OF_HEALTH = ["kl", "is_active", "aggregate_mean", "aggregate_std", "aggregate_kl", "kolmogorov", "wasserstein"]


@explores(
    "health",
    "seed",
    "Health of the latents",
    table=lambda ds: ds[OF_HEALTH].to_dataframe().reset_index(),
)
def health(ds: xr.Dataset) -> Iterator[str]:
    """Disentanglement and health: KL, active units, correlation, the aggregate posterior against the prior."""
    from vaearr.views.spread import correlation_words, health_words

    total = ds.attrs["kl_total"]
    kl = "" if total is None else f", KL {total:.4g} nats per sample"
    yield f"{ds.attrs['n_active']} of {ds.sizes['latent']} latents active{kl}"
    yield correlation_words(ds)
    yield from health_words(ds)
    yield from table_lines(_by_latent(ds, OF_HEALTH), OF_HEALTH, 14)


def _by_latent(ds: xr.Dataset, columns: Iterable[str]) -> dict[Any, list[float]]:
    return {latent: [float(ds[name][i]) for name in columns] for i, latent in enumerate(ds["latent"].values)}


def _warn(ds: xr.Dataset) -> None:
    for warning in ds.attrs["warnings"]:
        say(f"warning: {warning}")


def _unusual(store: str, run: str, **given: Any) -> tuple[xr.Dataset, dict[str, Any]]:
    """With the maps that the samples are chosen by, which the pictures show too."""
    from vaearr import exploration

    if (count := given.get("count", 1)) < 1:
        raise UsageError(f"--n is {count}; it must be at least 1.")
    maps = exploration.out_of_distribution(store, run)
    return exploration.unusual(store, run, maps=maps, **given), {"maps": maps}


@explores(
    "unusual",
    "count by",
    "Unusual samples",
    table=lambda ds: ds.drop_vars("input").reset_coords().to_dataframe().reset_index(drop=True),
    find=_unusual,
)
def unusual(ds: xr.Dataset) -> Iterator[str]:
    """The samples farthest from the others in latent space, by Mahalanobis distance; a scan's sheet has the map."""
    from vaearr.views.sheets import sample_words

    for i in range(ds.sizes["point"]):
        one = ds.isel(point=i)
        p_value = f", p {float(one['p_value']):.3g}" if "p_value" in one else ""
        words = sample_words(one).replace("\n", ", ")
        yield f"{i + 1}: {words}, distance {float(one['distance']):.4g}{p_value}"


@look.command()
def sample(
    store: Store,
    run: RunName = DEFAULT_RUN,
    count: Annotated[int, typer.Option("--n", help="number of draws")] = 16,
    seed: Seed = 0,
    source: Annotated[str, typer.Option(help="prior, or fitted: the Gaussian of the run's own latents")] = "prior",
    out: Folder = None,
) -> None:
    """Draw latents, decode them, and print the vectors.

    --out writes samples.png, vectors.png with the latents beside the pictures, one picture for each draw, and z.csv
    (z.npy of spatial latents).
    """
    from vaearr.run.draw import sample_prior

    with folder_of(out) as folder:
        found = sample_prior(store, run, count, seed, source=source)  # type: ignore[arg-type]  # checked there
        if folder:
            from vaearr.views import save
            from vaearr.views.pictures import save_pictures

            save(found, folder / "samples.png")
            save_pictures(found["decoded"].isel(sample=slice(FILE_MOST)), folder, "sample")
            _write_vectors(found, folder)
    _warn(found)
    for number, z in zip(found["sample"].values, found["latents"].values, strict=True):
        if z.ndim == 1:
            typer.echo(f"{number}: {_row(z)}")
        else:  # of spatial latents the size of each channel
            sizes = _row(z.reshape(len(z), -1).std(1))
            typer.echo(f"{number}: {' x '.join(map(str, z.shape))}, standard deviation of each channel {sizes}")


def _write_vectors(found: xr.Dataset, folder: Path) -> None:
    """Latents beside their pictures, and as the table z.csv, a row for each; spatial latents as the array z.npy."""
    import numpy as np

    from vaearr.views import save

    save(found, folder / "vectors.png", kind="vectors")
    z = found["latents"]
    if z.ndim > 2:
        np.save(folder / "z.npy", z.values, allow_pickle=False)
        return
    rows = [",".join(f"latent_{i}" for i in z["latent"].values)]
    rows += [",".join(repr(float(value)) for value in row) for row in z.values]
    (folder / "z.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@look.command()
def interpolate(
    store: Store,
    a: Annotated[
        str | None, typer.Option("--from", help="X:Y[:Z] of a scan point in coordinate units, or number of a sample")
    ] = None,
    b: Annotated[str | None, typer.Option("--to", help="where to go, given like --from")] = None,
    a_file: Annotated[Path | None, typer.Option("--from-file", help="a file as the sample to begin with")] = None,
    b_file: Annotated[Path | None, typer.Option("--to-file", help="a file as the sample to end with")] = None,
    run: RunName = DEFAULT_RUN,
    steps: Annotated[int, typer.Option(help="pictures on the way, both ends included")] = 9,
    method: Annotated[str, typer.Option(help="lerp or slerp")] = "lerp",
    out: Folder = None,
) -> None:
    """Decode the way between the latents of two samples, each of the store or a file of its own.

    --out writes interpolation.png, vectors.png with the latents beside the pictures, interpolation.gif and z.csv (z.npy
    of spatial latents).
    """
    from vaearr.run.draw import interpolate as run_interpolate

    with folder_of(out) as folder:
        found = run_interpolate(store, run, _end(a, a_file, "--from"), _end(b, b_file, "--to"), steps, method)
        if folder:
            from vaearr.views import save
            from vaearr.views.pictures import frames, save_animation

            save(found, folder / "interpolation.png")
            save_animation(frames(found), folder / "interpolation.gif")
            _write_vectors(found, folder)
    typer.echo(f"{method}, {steps} steps, distance of the ends {found.attrs['distance']:.4g}")


def _end(text: str | None, file: Path | None, option: str) -> Any:
    """Where an interpolation begins or ends."""
    if (text is None) == (file is None):
        raise UsageError(f"give either {option} or {option}-file.")
    return file if text is None else point_of(text, option)


@look.command()
def stats(store: Store, run: RunName = DEFAULT_RUN, out: Folder = None) -> None:
    """Statistics of a run's latents: mean, spread, KL, active units, aggregate posterior beside the prior.

    They are kept in the store as the run's table latent_statistics; --out writes latent_statistics.png.
    """
    from vaearr.run.statistics import latent_statistics

    with folder_of(out) as folder:
        found = latent_statistics(store, run, write=True)
        if folder:
            from vaearr.views import save

            save(found, folder / "latent_statistics.png", kind="statistics")
    attrs = found.attrs
    typer.echo(
        f"run {run!r}: {attrs['n']} samples, {attrs['n_active']} of {found.sizes['latent']} latents active, KL "
        f"{attrs['kl_total']:.4g} nats per sample, largest correlation {attrs['largest_correlation']:.2f}"
    )
    columns = ("mean", "std", "min", "max", "logvar_mean", "logvar_std", "kl", "aggregate_std", "aggregate_kl")
    print_lines(table_lines(_by_latent(found, columns), columns, 13))
    _warn(found)


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
) -> None:
    """Histogram, profiles and kept points of band contrast or any other map."""
    from vaearr.grid import roi as roi_of
    from vaearr.schema import maps
    from vaearr.side_maps import histogram, profile, top_percent, write_kept_coordinates
    from vaearr.store import open_store

    if keep and (top is None) == (where is None):
        raise UsageError("--keep writes the points of --top or of --where; give one of them.")
    ds = open_store(store, chunks=None)
    if variable not in maps(ds):
        raise NoInputError(f"{store} has no map {variable!r}.{did_you_mean(variable, maps(ds))}")
    da = ds[variable].load()
    counts = histogram(da, width)
    profiles = [profile(da, y=y) for y in row or ()] + [profile(da, x=x) for x in column or ()]
    typer.echo(f"{variable}: {counts.attrs['n']} points, {counts.attrs['n_missing']} missing")
    for left, count in zip(counts["bin"].values, counts["count"].values, strict=True):
        typer.echo(f"  {left:g} to below {left + width:g}: {count}")
    mask = None
    if top is not None:
        mask = top_percent(da, top)
        typer.echo(f"the strongest {top:g} %: {mask.attrs['n_kept']} points from {mask.attrs['threshold']:g} on")
    elif where is not None:
        mask = roi_of(ds, where=where)
        typer.echo(f"{where}: {mask.attrs['n']} points")
    if keep and mask is not None:
        say(f"their coordinates are in {write_kept_coordinates(ds, mask, keep)}")
    if out:
        from vaearr.views import save

        figure = save(da, out, kind="contrast", histogram=counts, profiles=profiles, roi=mask)
        say(f"the figure is {figure}")
