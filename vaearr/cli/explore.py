"""Commands that look around in a latent space by decoding: prototypes, traversals, planes, paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vaearr.cli.common import RunName, Store, app, box, number_pairs, say
from vaearr.cli.explore_out import (
    SHEET,
    By,
    Dims,
    Ends,
    From,
    Out,
    OutWithFilm,
    Perplexity,
    Seed,
    Unit,
    base_of,
    check_out,
    row,
    write,
)
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

FILM = (*SHEET, ".gif")


@app.command()
def prototypes(store: Store, run: RunName = DEFAULT_RUN, by: By = None, out: Out = None) -> None:
    """Mean latents of each class and what they decode to."""
    check_out(out)
    from vaearr.exploration import prototypes as find
    from vaearr.exploration.points import pooled

    found = find(store, run, by)
    write(
        found,
        out,
        heading="Prototypes",
    )
    vectors = pooled(found["latents"].values)
    for name, count, means in zip(found["class"].values, found["n"].values, vectors, strict=True):
        typer.echo(f"{name}: n {int(count)}, {row(means)}")
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
    out: OutWithFilm = None,
) -> None:
    """Move one latent dimension after another and decode; all of them, or those of --dim."""
    check_out(out, FILM)
    ends, begin = box(span, "--span", "LOW:HIGH"), base_of(base)
    from vaearr.exploration import traverse as find

    found = find(store, run, dim or None, begin, ends, steps, unit=unit, by=by)
    write(
        found,
        out,
        heading="Traversals",
        more={".gif": lambda path: _film(found, path)},
    )
    typer.echo(f"from {found.attrs['base']}")
    for i, values in zip(found["latent_dim"].values, found["value"].values, strict=True):
        typer.echo(f"latent {i}: {values[0]:.4g} to {values[-1]:.4g} in {steps} steps")


def _film(found: Any, path: Path) -> None:
    from vaearr.views.pictures import frames, save_animation

    save_animation(frames(found), path)


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
    check_out(out)
    ends, begin = box(span, "--span", "LOW:HIGH"), base_of(base)
    from vaearr.exploration import manifold as find

    pair: Any = tuple(dim) if dim else (0, 1)
    found = find(store, run, pair, ends, steps, base=begin, unit=unit, by=by)
    write(
        found,
        out,
        heading="Plane of two latents",
    )
    for axis in ("column", "row"):
        values = found[axis].values
        typer.echo(f"{axis}s: {found[axis].attrs['long_name']} from {values[0]:.4g} to {values[-1]:.4g}")


@app.command()
def path(
    store: Store,
    point: Annotated[
        list[str] | None, typer.Option("--point", help="X:Y in the plane, write --point=-1:2; repeat")
    ] = None,
    run: RunName = DEFAULT_RUN,
    space: Annotated[str, typer.Option(help="plane of two latents, pca, tsne or umap")] = "plane",
    dim: Dims = None,
    steps: Annotated[int | None, typer.Option(help="so many points along the line through --point")] = None,
    base: From = "mean",
    by: By = None,
    seed: Seed = 0,
    max_points: Annotated[int, typer.Option(help="samples in the scatter, and to embed, at most")] = 5000,
    perplexity: Perplexity = 30.0,
    out: OutWithFilm = None,
) -> None:
    """Decode points, or a line, in a plane: of two latents (--dim, default 0 and 1), of PCA, t-SNE or UMAP.

    The others keep the values of --base; PCA is inverted exactly; for t-SNE and UMAP the nearest sample is decoded.
    """
    check_out(out, FILM)
    asked, begin = number_pairs(point, "--point"), base_of(base)
    if not asked:
        raise UsageError("a path needs points; give one or more, such as --point=-1:0 --point=1:2.")
    if space != "plane" and (dim or base != "mean"):
        raise UsageError(f"--dim and --base are of --space plane; leave them out, or {space!r}.")
    if out is not None and out.suffix.lower() == ".gif" and len(asked) == 1:
        raise UsageError("an animation needs two points or more; give another --point, or another ending.")
    from vaearr.exploration import path as find

    found = find(
        store,
        run,
        asked,
        space=space,
        dims=tuple(dim) if dim else (0, 1),  # type: ignore[arg-type]  # checked there
        steps=steps,
        base=begin,
        by=by,
        seed=seed,
        max_points=max_points,
        perplexity=perplexity,
    )
    write(
        found,
        out,
        heading="Path",
        more={".gif": lambda target: _film(found, target)},
    )
    typer.echo(f"{', '.join(map(str, found['axis'].values))}; others: {found.attrs['base']}")
    latents = found["latents"].values.reshape(found.sizes["step"], found.sizes["latent"], -1).mean(-1)
    for i, (where, z) in enumerate(zip(found["position"].values, latents, strict=True)):
        typer.echo(f"{i + 1} at {row(where)}: {row(z)}")
