"""`vaearr look …`: what classes, dimensions, planes and single latents decode to, how the latents lie, and layers.

Most are a function of `va.explore`, whose keywords are the options; its result goes to --out and, in words, to the
terminal.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer

import vaearr as va
from vaearr.cli.common import (
    SOURCE,
    Given,
    Option,
    app,
    command,
    folder_of,
    look,
    opt,
    option,
    print_lines,
    refuse,
    say,
    trusted_run,
    with_options,
)
from vaearr.errors import NoInputError, UsageError, did_you_mean, need
from vaearr.names import BC, DEFAULT_RUN

SHEET, TABLE, FILM = (".png", ".pdf", ".html", ".npz"), (".csv", ".parquet"), (".gif",)
FILE_MOST = 1000  # single pictures of draws
NUMBERS, TEXTS = tuple[int, ...], tuple[str, ...]
KEYWORDS: dict[str, tuple[Any, ...]] = {  # of the functions: type, help, flag, form
    "dims": (NUMBERS, "latent dimension", "--dim"),
    "base": (
        str,
        "typical (default) or mean, typical:NAME or prototype:NAME of a class, X:Y[:Z] of a scan point, or the number "
        "of a sample",
        "--base",
    ),
    "by": (str, "map with the classes; default: label, phase or clusters", "--by"),
    "classes": (TEXTS, "only this class of --by; repeatable", "--class"),
    "span": (tuple[float, float], "to either side of the base, write --span=-3:3", "--span", "LOW:HIGH"),
    "unit": (str, "of --span: std of the aggregate posterior (default), or absolute", "--unit"),
    "steps": (int, "pictures of each dimension, side or line; default: 9, of a manifold 15", "--steps"),
    "points": (tuple[tuple[float, float], ...], "in the plane, write --point=-1:2", "--point"),
    "space": (str, "plane of two latents (default), pca, tsne or umap", "--space"),
    "method": (str, "tsne (default), pca or umap; of a way: lerp (default) or slerp", "--method"),
    "color": (TEXTS, "once more by latent:N or a map such as BC", "--color"),
    "bins": (int, "bins of each dimension", "--bins"),
    "count": (int, "number of samples; default: 16", "--n"),
    "n_samples": (int, "number of draws; default: 16", "--n"),
    "n_components": (int, "number of components; default: all, at most 64", "--components"),
    "max_points": (int, "samples at most", "--max-points"),
    "perplexity": (float, "of t-SNE: about how many neighbours count; default: 30", "--perplexity"),
    "neighbours": (int, "of UMAP; default: 15", "--neighbours"),
    "seed": (int, "seed of whatever is drawn or chosen; default: 0", "--seed"),
    "source": (str, SOURCE, "--source"),
    "a": (str, "file, X:Y[:Z] of a scan point, or number of a sample", "--from"),
    "b": (str, "where to go, given like --from", "--to"),
}


@dataclass(frozen=True)
class Look:
    """A command around a function `(store, run, …)`, by its name in `va`, some of whose keywords are its options.

    It returns a result, or one and options of its view. table: variables of .csv and .parquet, or what makes the table
    from the call's arguments. film: whether .gif can be written. folder: the picture, where --out is a folder.
    """

    function: str | Callable[..., Any]
    keywords: str
    help: str
    table: str | Callable[..., Any] = ""
    film: bool = False
    folder: str = ""

    def command(self) -> Any:
        endings = (*SHEET, *(TABLE if self.table else ()), *(FILM if self.film else ()))
        kinds = "; .csv, .parquet" * bool(self.table) + "; .gif, an animation" * self.film
        words = f"file to write: .png or .pdf, the sheet; .html, a page; .npz, the arrays{kinds}"
        if self.folder:
            words = f"folder for {self.folder}.png, each draw or a .gif of the way, and z.csv (spatial latents: z.npy)"
        options = {"out": Option(Annotated[Path | None, opt(words)], Path)}
        options |= {name: option(*KEYWORDS[name]) for name in self.keywords.split()}

        def call(store: str, given: Given, run: str = DEFAULT_RUN, trust: list[str] | None = None) -> None:
            out: Path | None = given.pop("out", None)
            file, folder = (None, out) if self.folder else (out, None)
            if file:
                _check_out(file, endings)
            given |= {name: POINTS[name](given[name]) for name in POINTS if name in given}
            find: Any = self.function if callable(self.function) else reduce(getattr, self.function.split("."), va)
            with folder_of(folder) as aside:
                opened = trusted_run(store, run, trust)
                made = find(opened, run, **given)
                found, beside = made if isinstance(made, tuple) else (made, {})
                if aside:
                    _write_folder(found, aside, self.folder)
            if file:
                table: Any = self.table
                if callable(table) and file.suffix.lower() in TABLE:
                    table = table(opened, run, **given)
                _write(found, file, table, **beside)
            print_lines(va.describe(found), warnings_aside=True)

        call.__doc__ = self.help
        return with_options(options)(call)


def _check_out(out: Path, endings: tuple[str, ...]) -> None:
    """Refuse a file that could not be written, before anything is worked out."""
    from vaearr.views.paper import check_new

    if out.suffix.lower() not in endings:
        raise UsageError(f"--out {out.name!r} must end in {', '.join(endings[:-1])} or {endings[-1]}.")
    if out.suffix.lower() == ".parquet":
        need("pyarrow", "vaearr[parquet]", out.name)
    check_new(out, overwrite=False)


def _point(text: str) -> Any:
    """A scan point X:Y or X:Y:Z, the number of a sample, or else a file."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        return Path(text)
    if len(values) == 1:
        return int(values[0]) if values[0].is_integer() else values[0]
    return dict(zip("xyz", values, strict=False))


def _base(text: str) -> Any:
    """What `--base` names: a word, a scan point or the number of a sample."""
    found = _point(text)
    return text if isinstance(found, Path) else found


POINTS: dict[str, Callable[[str], Any]] = {"base": _base, "a": _point, "b": _point}


def _write(found: Any, out: Path, table: Any, **how: Any) -> None:
    """Write what was found by the ending of `out`: its table, an animation, its arrays, or its view."""
    from vaearr.views import save
    from vaearr.views.pictures import frames, save_animation

    ending = out.suffix.lower()
    if ending in TABLE:
        va.explore.save_table(_wide(found, table.split()) if isinstance(table, str) else table, out)
    elif ending in FILM:
        refuse(found.sizes["step"] < 2, "an animation needs two points or more; give another --point or ending.")
        save_animation(frames(found), out)
    elif ending == ".npz":
        _save_arrays(found, out)
    else:
        weights = found.attrs.get("weights_sha256")
        origin = f"Run {found.attrs.get('run')!r}" + (f", weights {weights[:12]}." if weights else ".")
        save(found, out, sentences=[origin], **how)
    say(f"written: {out}")


def _wide(found: Any, names: list[str]) -> Any:
    """A row for each label of the first dim; of what lies over others too a column for each of their places."""
    import numpy as np

    names = [name for name in names if name in found]
    dim = found[names[0]].dims[0]
    table = found[names].drop_dims([other for other in found[names].dims if other != dim])
    for name in names:
        values = found[name].transpose(dim, ...)
        for place in np.ndindex(values.shape[1:]) if values.ndim > 1 else ():
            label = values[values.dims[1]].values[place[0]]
            column = label if isinstance(label, str) else f"{values.dims[1]}_{'_'.join(map(str, place))}"
            table[str(column)] = (dim, values.values[(slice(None), *place)])
    if meanings := table["class"].attrs.get("flag_meanings") if "class" in table.coords else None:
        words = dict(zip(table["class"].attrs["flag_values"], meanings, strict=True))
        table["class_name"] = (dim, [words[int(code)] for code in table["class"].values])
    return table.reset_coords().to_dataframe().reset_index(drop=dim not in found.coords)


def _save_arrays(found: Any, out: Path) -> None:
    """All arrays and coordinates by their names; texts as such, nothing pickled."""
    import numpy as np

    from vaearr.store.folders import replace_file

    values = {str(name): variable.values for name, variable in found.variables.items()}
    values = {name: array.astype(str) if array.dtype.kind in "OT" else array for name, array in values.items()}
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **values)
    replace_file(out, data.getvalue())


def _write_folder(found: Any, folder: Path, name: str) -> None:
    """The view, single draws or an animation of a way, and the latents: beside their pictures, and as numbers."""
    import numpy as np

    from vaearr.views import save
    from vaearr.views.pictures import frames, save_animation, save_pictures

    save(found, folder / f"{name}.png")
    if "latents" not in found:
        return
    if "step" in found.dims:
        save_animation(frames(found), folder / f"{name}.gif")
    else:
        save_pictures(found["decoded"].isel(sample=slice(FILE_MOST)), folder, "sample")
    z = found["latents"].drop_vars(found["latents"].coords)
    if z.ndim > 2:
        np.save(folder / "z.npy", z.values, allow_pickle=False)
    else:
        va.explore.save_table(_wide(z.to_dataset(), ["latents"]), folder / "z.csv")


def _unusual(store: str, run: str, **given: Any) -> Any:
    """With the maps that the samples are chosen by, which the pictures show too."""
    maps = va.explore.out_of_distribution(store, run)
    return va.explore.unusual(store, run, maps=maps, **given), {"maps": maps}


def _rows(store: str, run: str, by: str | None = None, **given: Any) -> Any:
    """A row for every sample, where the result holds some."""
    chosen = {key: value for key, value in given.items() if key in ("classes", "dims")}
    return va.explore.activation_table(store, run, [by] if by else None, **chosen)


def _statistics(store: str, run: str) -> Any:
    return va.latent_statistics(store, run, write=True)


OF_HEALTH = "kl is_active aggregate_mean aggregate_std aggregate_kl wasserstein"
LOADINGS = "explained_variance explained_variance_ratio explained_variance_cumulative loadings"
LOOKS = {
    "prototypes": Look("explore.prototypes", "by classes", "A typical sample and the mean of each class, decoded."),
    "traverse": Look(
        "explore.traverse", "dims base span steps unit by", "Move single latent dimensions and decode.", film=True
    ),
    "manifold": Look(
        "explore.manifold", "dims span steps base unit by", "Decode a grid, the first --dim to the right, one upwards."
    ),
    "path": Look(
        "explore.path",
        "points space dims steps base by seed max_points perplexity",
        "Decode points, or a line, in a plane: of two latents, of PCA, t-SNE or UMAP.\n\nThe others keep the values of "
        "--base; PCA is inverted exactly; for t-SNE and UMAP the nearest sample is decoded.",
        film=True,
    ),
    "interpolate": Look(
        "interpolate", "a b steps method", "Decode the way between two samples or files.", folder="interpolation"
    ),
    "sample": Look("sample_prior", "n_samples seed source", "Draw latents and decode them.", folder="samples"),
    "scatter": Look(
        "explore.embedding",
        "method seed max_points perplexity neighbours by color",
        "Samples in a plane by their latents, coloured by class and by --color.",
        "position amount",
    ),
    "pairs": Look("explore.pairs", "dims bins by max_points seed", "Each two of some latents: density, correlation."),
    "histograms": Look("explore.histograms", "by classes dims bins", "Histograms of latents, one for each class."),
    "activations": Look(
        "explore.activations", "by classes dims max_points seed", "Latents of samples sorted by class.", _rows
    ),
    "describe": Look("explore.latent_table", "", "Count, mean, spread, quartiles and range of latents.", "summary"),
    "components": Look(
        "explore.latent_pca", "n_components max_points seed", "Principal components of the latents.", LOADINGS
    ),
    "health": Look("explore.health", "seed", "KL, active units, the aggregate posterior and the prior.", OF_HEALTH),
    "stats": Look(_statistics, "", "Keep the latents' statistics as a table of the run.", folder="latent_statistics"),
    "unusual": Look(_unusual, "count by", "The samples farthest from the others.", "distance p_value"),
}
for _name, _look in LOOKS.items():
    look.command(_name)(_look.command())


@command(group=look)
def contrast(
    store: str,
    variable: str = BC,
    out: Path | None = None,
    width: float = 10.0,
    row: list[float] | None = None,
    column: list[float] | None = None,
    top: float | None = None,
    where: str | None = None,
    keep: Path | None = None,
) -> None:
    """Histogram, profiles and kept points of band contrast or any other map.

    Args:
        variable (--map): map to look at
        out: PNG or PDF with map, histogram and profiles
        width: width of a bin of the histogram
        row: profile along the row at this y; repeatable
        column: profile along the column at this x; repeatable
        top: percent of the points with the largest values
        where: points by a condition, such as "BC >= 45"
        keep: CSV to write the points of --top or --where to
    """
    from vaearr.analysis.side_maps import histogram, profile, top_percent, write_kept_coordinates
    from vaearr.schema import maps

    refuse(
        keep and (top is None) == (where is None), "--keep writes the points of --top or of --where; give one of them."
    )
    ds = va.open_store(store, chunks=None)
    if variable not in maps(ds):
        raise NoInputError(f"{store} has no map {variable!r}.{did_you_mean(variable, maps(ds))}")
    da, mask = ds[variable].load(), None
    counts = histogram(da, width)
    profiles = [profile(da, y=y) for y in row or ()] + [profile(da, x=x) for x in column or ()]
    print_lines(va.describe(counts, "histogram"))
    if top is not None:
        mask = top_percent(da, top)
        typer.echo(f"the strongest {top:g} %: {mask.attrs['n_kept']} points from {mask.attrs['threshold']:g} on")
    elif where is not None:
        mask = va.roi(ds, where=where)
        typer.echo(f"{where}: {mask.attrs['n']} points")
    if keep and mask is not None:
        say(f"their coordinates are in {write_kept_coordinates(ds, mask, keep)}")
    if out:
        from vaearr.views import save

        figure = save(da, out, kind="contrast", histogram=counts, profiles=profiles, roi=mask)
        say(f"the figure is {figure}")


@command(group=look)
def layers(
    store: str,
    run: str = DEFAULT_RUN,
    a: str | None = None,
    b: str | None = None,
    positive: Path | None = None,
    negative: Path | None = None,
    part: str = "both",
    level: str = "leaf",
    top: int = 10,
    skip_bad: bool = False,
    out: Path | None = None,
    seed_files: bool = False,
    keep: bool = False,
    overwrite: bool = False,
    name: str = "layers",
    device: str = "auto",
    trust: list[str] | None = None,
    as_json: bool = False,
) -> None:
    """Compare two samples layer by layer: how far apart a trained model's activations are.

    --a with --b, or --positive with --negative, say what is compared. --out writes layers.csv, layers.json,
    top_layers.png, layer_curves.png, difference_maps.png, and pairs.csv of many pairs.

    Args:
        a: first sample: file, X:Y[:Z] of a scan point, or number of a sample
        b: second sample, given like --a
        positive: folder of files, each a of a pair
        negative: folder of files of the same names, each b of a pair
        part: both, encoder or decoder
        level: leaf: every single layer; block: residual blocks and the like
        top: layers that are listed and whose maps are kept
        skip_bad: leave out pairs that cannot be compared
        seed_files: also the JSON files of an earlier program
        keep: keep the result as a table of the run
        name: --keep: name of the table
        as_json (--json): print the whole result as JSON
    """
    said = {"a": a, "b": b, "positive": positive, "negative": negative}
    about = {key: str(value) for key, value in said.items() if value is not None}
    words = "say what is compared by either --a with --b, or --positive with --negative."
    refuse({*about} not in ({"a", "b"}, {"positive", "negative"}), words)
    refuse(seed_files and out is None, "--seed-files writes files; say where with --out FOLDER.")
    from vaearr.analysis import layers as of
    from vaearr.output.exporting.layer_files import layer_summary, write_layer_files
    from vaearr.output.exporting.seed import write_layer_differences
    from vaearr.recipe import as_json as plain
    from vaearr.run import open_run

    opened = open_run(trusted_run(store, run, trust, device=device))
    model, ds, alone = opened.model, opened.ds, list[str]()
    how: Given = {"part": part, "level": level, "top": top}
    if "a" in about:
        one, two = (of.sample_of(ds, _point(about[side])) for side in "ab")
        found = va.compare_layers(model, one, two, **how)
    else:
        pairs, alone = of.pairs_of_folders(ds, about["positive"], about["negative"], skip_bad=skip_bad)
        found = va.compare_pairs(model, pairs, skip_bad=skip_bad, **how)
    found.attrs.update(opened.attrs, unpaired=alone, samples=about)
    if keep:
        of.keep_layers(store, run, found, name=name, about=about, overwrite=overwrite)
        say(f"the comparison is kept as table {name!r} of run {run!r}")
    with folder_of(out) as folder:
        if folder:
            write_layer_files(found, folder)
            if seed_files:
                write_layer_differences(found, folder)
    for text in (*(f"{file} has no partner" for file in alone), *found.attrs.get("failed", ())):
        say(f"left out: {text}")
    if as_json:
        print_lines([json.dumps(plain(layer_summary(found)), indent=2, ensure_ascii=False, allow_nan=False)])
    else:
        print_lines(va.describe(found, "layers"))


app.add_typer(look, name="look", short_help="Pictures and numbers of a latent space: vaearr look --help")
