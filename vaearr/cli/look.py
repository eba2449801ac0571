"""`vaearr look …`: what classes, dimensions, planes and single latents decode to, how the latents lie, and layers.

Most are a function of `va.explore`, whose keywords are the options; its result goes to --out and, in words, to the
terminal.
"""

from __future__ import annotations

import inspect
import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

import vaearr as va
from vaearr.cli.commands import SOURCE, contrast, layers, refuse
from vaearr.cli.common import (
    LOOKS,
    PLAIN,
    Folder,
    RunName,
    Store,
    app,
    box,
    folder_of,
    opt,
    pairs,
    print_lines,
    say,
    with_options,
)
from vaearr.errors import ExistsError, NoInputError, UsageError, need
from vaearr.names import DEFAULT_RUN

SHEET, TABLE, FILM = (".png", ".pdf", ".html", ".npz"), (".csv", ".parquet"), (".gif",)
FILE_MOST = 1000  # single pictures of draws
Numbers, Texts = list[int] | None, list[str] | None
OPTIONS: dict[str, tuple[Any, ...]] = {  # by the keyword of the functions: type, help, flag
    "dims": (Numbers, "latent dimension; repeat", "--dim"),
    "base": (str | None, "mean, prototype:NAME, X:Y[:Z] of a scan point, or the number of a sample"),
    "by": (str | None, "map with the classes; default: label, phase or clusters"),
    "classes": (Texts, "only samples of this class of --by; repeat", "--class"),
    "span": (str | None, "LOW:HIGH to either side of the base, write --span=-3:3"),
    "unit": (str | None, "of --span: std of the aggregate posterior, or absolute"),
    "steps": (int | None, "pictures of each dimension, side or line"),
    "points": (Texts, "X:Y in the plane, write --point=-1:2; repeat", "--point"),
    "space": (str | None, "plane of two latents, pca, tsne or umap"),
    "method": (str | None, "pca, tsne or umap; of a way: lerp or slerp"),
    "color": (Texts, "once more by latent:N or a map such as BC; repeat"),
    "bins": (int | None, "bins of each dimension"),
    "count": (int | None, "number of samples", "--n"),
    "n_samples": (int | None, "number of draws", "--n"),
    "n_components": (int | None, "number of components; all, at most 64", "--components"),
    "max_points": (int | None, "samples at most"),
    "perplexity": (float | None, "of t-SNE: about how many neighbours count"),
    "neighbours": (int | None, "of UMAP"),
    "pooled": (bool | None, "spatial latents: one mean for each dimension, as where a mask is", "--pooled"),
    "seed": (int | None, "seed of whatever is drawn or chosen"),
    "source": (str | None, SOURCE),
    "a": (str | None, "X:Y[:Z] of a scan point in coordinate units, or number of a sample", "--from"),
    "b": (str | None, "where to go, given like --from", "--to"),
    "a_file": (Path | None, "a file as the sample to begin with", "--from-file"),
    "b_file": (Path | None, "a file as the sample to end with", "--to-file"),
}


@dataclass(frozen=True)
class Look:
    """A command around a function `(store, run, …)`, by its name in `va`, whose keywords among OPTIONS are options.

    It returns a result, or one and options of its view. table: variables of .csv and .parquet, or what makes the table
    from the call's arguments. film: whether .gif can be written. folder: the picture, where --out is a folder.
    """

    function: str | Callable[..., Any]
    help: str
    table: str | Callable[..., Any] = ""
    film: bool = False
    folder: str = ""

    def command(self) -> Callable[..., None]:
        find: Any = reduce(getattr, self.function.split("."), va) if isinstance(self.function, str) else self.function
        endings = (*SHEET, *(TABLE if self.table else ()), *(FILM if self.film else ()))

        def call(store: Store, run: RunName = DEFAULT_RUN, out: Path | None = None, **given: Any) -> None:
            if out is not None and not self.folder:
                _check_out(out, endings)
            given = {key: value for key, value in given.items() if value not in (None, [])}
            given = {key: READ[key](value) if key in READ else value for key, value in given.items()}
            with folder_of(out if self.folder else None) as folder:
                made = find(store, run, **given)
                found, beside = made if isinstance(made, tuple) else (made, {})
                if folder:
                    _write_folder(found, folder, self.folder)
            lines, table = va.describe(found), self.table
            if out is not None and not self.folder:
                if callable(table) and out.suffix.lower() in TABLE:
                    table = table(store, run, **given)
                _write(found, out, table, heading=self.help.partition(".")[0], **beside)
            print_lines(lines, warnings_aside=True)

        kinds = "; .csv, .parquet" * bool(self.table) + "; .gif, an animation" * self.film
        words = f"file to write: .png or .pdf, the sheet; .html, a page; .npz, the arrays{kinds}"
        known = inspect.signature(find).parameters
        chosen = {name: _option(*OPTIONS[name], usual=p.default) for name, p in known.items() if name in OPTIONS}
        chosen["out"] = Folder if self.folder else Annotated[Path | None, opt(words)]
        own = inspect.signature(call, eval_str=True)
        call.__signature__ = with_options(own, chosen, "out", "given")  # type: ignore[attr-defined]
        call.__doc__ = self.help
        return call


def _option(kind: Any, words: str, *flags: str, usual: Any) -> Any:
    """An option whose help tells the default of the function."""
    if usual not in (None, (), False):
        words += f" [default: {':'.join(f'{end:g}' for end in usual) if isinstance(usual, tuple) else usual}]"
    return Annotated[kind, opt(words, *flags, min=0 if kind == int | None else None)]


class Looks(typer.core.TyperGroup):
    """Commands that are made when they are asked for, with what stands behind them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*LOOKS]

    def get_command(self, ctx: Any, name: str) -> Any:
        look = LOOKS.get(name)
        if look is None:
            return None
        one = typer.Typer(**PLAIN)
        one.command(name)(look.command() if isinstance(look, Look) else look)
        return typer.main.get_command(one)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Without making them."""
        width = formatter.width - 6 - max(map(len, LOOKS))
        words = {name: look.help if isinstance(look, Look) else inspect.getdoc(look) for name, look in LOOKS.items()}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, textwrap.shorten(text or "", width, placeholder="...")) for name, text in words.items()]
            )


app.add_typer(
    typer.Typer(cls=Looks, help="Look around in a latent space, and at the data it is learned from.", **PLAIN),
    name="look",
    short_help="Pictures and numbers of a latent space: vaearr look --help",
)


def _check_out(out: Path, endings: tuple[str, ...]) -> None:
    """Refuse a file that could not be written, before anything is worked out."""
    if out.suffix.lower() not in endings:
        raise UsageError(f"--out {out.name!r} must end in {', '.join(endings[:-1])} or {endings[-1]}.")
    if out.suffix.lower() == ".parquet":
        need("pyarrow", "vaearr[parquet]", out.name)
    if not out.absolute().parent.is_dir():
        raise NoInputError(f"there is no folder {out.parent}; make it first.")
    if out.exists():
        raise ExistsError(f"{out} is there already; give another name.")


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
    return point_of(text, "--base") if text[:1].isdigit() or text[:1] in "-." else text


READ: dict[str, Callable[[Any], Any]] = {
    "base": _base,
    "span": lambda text: box(text, "--span", "LOW:HIGH"),
    "points": lambda texts: pairs(texts, "--point"),
}


def _unusual(store: str, run: str, count: int = 16, by: str | None = None) -> Any:
    """With the maps that the samples are chosen by, which the pictures show too."""
    refuse(count < 1, f"--n is {count}; it must be at least 1.")
    maps = va.explore.out_of_distribution(store, run)
    return va.explore.unusual(store, run, count, by=by, maps=maps), {"maps": maps}


def _interpolate(
    store: str,
    run: str,
    a: str | None = None,
    b: str | None = None,
    a_file: Path | None = None,
    b_file: Path | None = None,
    steps: int = 9,
    method: str = "lerp",
) -> Any:
    ends: dict[str, Any] = {}
    for end, text, file, option in (("a", a, a_file, "--from"), ("b", b, b_file, "--to")):
        refuse((text is None) == (file is None), f"give either {option} or {option}-file.")
        ends[end] = file if text is None else point_of(text, option)
    return va.interpolate(store, run, **ends, steps=steps, method=method)


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


def _rows(store: str, run: str, by: str | None = None, **given: Any) -> Any:
    """A row for every sample, where the result holds some."""
    chosen = {key: value for key, value in given.items() if key in ("classes", "dims")}
    return va.explore.activation_table(store, run, [by] if by else None, **chosen)


OF_HEALTH = "kl is_active aggregate_mean aggregate_std aggregate_kl kolmogorov wasserstein"
LOADINGS = "explained_variance explained_variance_ratio explained_variance_cumulative loadings"
LOOKS |= {
    "prototypes": Look("explore.prototypes", "Mean latents of each class and what they decode to."),
    "traverse": Look(
        "explore.traverse", "Move one latent dimension after another and decode; all, or those of --dim.", film=True
    ),
    "manifold": Look(
        "explore.manifold",
        "Decode a grid over two latent dimensions: the first --dim to the right, the second upwards.",
    ),
    "path": Look(
        "explore.path",
        "Decode points, or a line, in a plane: of two latents, of PCA, t-SNE or UMAP.\n\nThe others keep the values of "
        "--base; PCA is inverted exactly; for t-SNE and UMAP the nearest sample is decoded.",
        film=True,
    ),
    "interpolate": Look(
        _interpolate,
        "Decode the way between the latents of two samples, each of the store or a file of its own.\n\n--out writes "
        "interpolation.png, interpolation.gif and z.csv (z.npy of spatial latents).",
        folder="interpolation",
    ),
    "sample": Look(
        "sample_prior",
        "Draw latents, decode them, and print the vectors.\n\n--out writes samples.png, one picture for "
        "each draw, and z.csv (z.npy of spatial latents).",
        folder="samples",
    ),
    "scatter": Look(
        "explore.embedding", "Samples in a plane by their latents, coloured by class and by --color.", "position amount"
    ),
    "pairs": Look(
        "explore.pairs", "Every two of some latent dimensions: densities, histograms, correlation; default: six widest."
    ),
    "histograms": Look(
        "explore.histograms", "Histogram of each latent dimension; with --by or --class, one for each class."
    ),
    "activations": Look(
        "explore.activations", "Latents of samples sorted by class, and their means; .csv holds every sample.", _rows
    ),
    "describe": Look(
        "explore.latent_table", "Count, mean, spread, quartiles and range of each latent dimension.", "summary"
    ),
    "components": Look(
        "explore.latent_pca", "Principal components of the latents (those of the patterns: vaearr embed).", LOADINGS
    ),
    "health": Look(
        "explore.health", "KL, active units, correlation, the aggregate posterior against the prior.", OF_HEALTH
    ),
    "stats": Look(
        lambda store, run: va.latent_statistics(store, run, write=True),
        "Statistics of the latents; kept in the store as the run's table latent_statistics.",
        folder="latent_statistics",
    ),
    "unusual": Look(_unusual, "The samples farthest from the others in latent space.", "distance p_value"),
    "contrast": contrast,
    "layers": layers,
}
