"""Commands that show how the latents of samples spread: planes, pairs, histograms, tables, health."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vaearr.cli.common import RunName, Store, app, say
from vaearr.cli.explore_out import (
    SHEET,
    TABLE,
    Bins,
    By,
    Classes,
    Dims,
    Out,
    OutWithTable,
    Perplexity,
    Pooled,
    Seed,
    check_out,
    row,
    tables,
    write,
)
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

BOTH = (*SHEET, *TABLE)


@app.command()
def scatter(
    store: Store,
    run: RunName = DEFAULT_RUN,
    method: Annotated[str, typer.Option(help="pca, tsne or umap")] = "tsne",
    color: Annotated[
        list[str] | None, typer.Option("--color", help="once more by latent:N or a map such as BC; repeat")
    ] = None,
    by: By = None,
    seed: Seed = 0,
    max_points: Annotated[int, typer.Option(help="samples at most")] = 5000,
    perplexity: Perplexity = 30.0,
    neighbours: Annotated[int, typer.Option(help="of UMAP")] = 15,
    pooled: Pooled = False,
    out: OutWithTable = None,
) -> None:
    """Samples in a plane by their latents (PCA, t-SNE, UMAP), coloured by class and by --color; nothing is stored."""
    check_out(out, BOTH)
    from vaearr.exploration import embedding

    found = embedding(
        store,
        run,
        method,
        seed=seed,
        max_points=max_points,
        perplexity=perplexity,
        neighbours=neighbours,
        by=by,
        pooled=pooled,
        color=color or (),
    )
    write(
        found,
        out,
        heading="Samples in a plane",
        more=tables(lambda: _positions(found)),
    )
    from vaearr.views.spread import embedding_words

    typer.echo(embedding_words(found))


def _positions(found: Any) -> Any:
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


@app.command()
def pairs(
    store: Store,
    run: RunName = DEFAULT_RUN,
    dim: Dims = None,
    by: By = None,
    bins: Bins = None,
    max_points: Annotated[int, typer.Option(help="single samples that are drawn, at most")] = 2000,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Every two of some latent dimensions: densities, histograms, correlation; the six widest, or those of --dim."""
    check_out(out)
    from vaearr.exploration import pairs as find

    found = find(store, run, dim or None, bins=bins, by=by, max_points=max_points, seed=seed)
    write(
        found,
        out,
        heading="Pairs of latents",
    )
    place = {int(d): i for i, d in enumerate(found["latent"].values)}
    pair = [(int(x), int(y)) for x, y in zip(found["x_dim"].values, found["y_dim"].values, strict=True)]
    r = {(x, y): float(found["correlation"].values[place[x], place[y]]) for x, y in pair}
    for x, y in sorted(pair, key=lambda xy: -abs(r[xy])):
        typer.echo(f"latent {x}, latent {y}: r = {r[x, y]:.3f}")


@app.command()
def histograms(
    store: Store,
    run: RunName = DEFAULT_RUN,
    dim: Dims = None,
    by: By = None,
    classes: Classes = None,
    bins: Bins = None,
    out: Out = None,
) -> None:
    """Histogram of each latent dimension; with --by or --class, one for each class."""
    check_out(out)
    from vaearr.exploration import histograms as find

    found = find(store, run, by, classes=classes or None, dims=dim or None, bins=bins)
    write(
        found,
        out,
        heading="Histograms of latents",
    )
    for i, edges in zip(found["latent"].values, found["edges"].values, strict=True):
        typer.echo(f"latent {i}: {edges[0]:.4g} to {edges[-1]:.4g}, {found.attrs['n']} samples")
    if "class" in found.coords:
        counts = found["counts"].isel(latent=0).sum("bin").values
        for name, count in zip(found["class"].values, counts, strict=True):
            typer.echo(f"{name}: {int(count)} samples")


@app.command()
def activations(
    store: Store,
    run: RunName = DEFAULT_RUN,
    by: By = None,
    classes: Classes = None,
    dim: Dims = None,
    max_points: Annotated[int, typer.Option(help="samples in the heat map, at most")] = 2000,
    seed: Seed = 0,
    out: OutWithTable = None,
) -> None:
    """Latents of samples sorted by class, and the mean of each class; .csv and .parquet hold every sample."""
    check_out(out, BOTH)
    from vaearr.exploration import activation_table
    from vaearr.exploration import activations as find

    found = find(store, run, by, classes=classes or None, dims=dim or None, max_points=max_points, seed=seed)
    columns = None if by is None else [by]
    write(
        found,
        out,
        heading="Activations",
        more=tables(lambda: activation_table(store, run, columns, classes=classes or None, dims=dim or None)),
    )
    typer.echo(f"{found.attrs['n']} samples")
    if "class_mean" in found:
        for name, count, means in zip(
            found["class"].values, found["n"].values, found["class_mean"].values, strict=True
        ):
            typer.echo(f"{name}: n {int(count)}, {row(means)}")


@app.command()
def describe(store: Store, run: RunName = DEFAULT_RUN, out: OutWithTable = None) -> None:
    """Count, mean, spread, quartiles and range of each latent dimension."""
    check_out(out, BOTH)
    from vaearr.exploration import latent_table

    found = latent_table(store, run)
    write(
        found,
        out,
        heading="Latents",
        more=tables(lambda: found["summary"].to_dataset("statistic").to_dataframe().reset_index()),
    )
    typer.echo("latent " + " ".join(f"{name:>10}" for name in found["statistic"].values))
    for i, values in zip(found["latent"].values, found["summary"].values, strict=True):
        typer.echo(f"{i:>6} " + " ".join(f"{value:>10.4g}" for value in values))


@app.command()
def components(
    store: Store,
    run: RunName = DEFAULT_RUN,
    count: Annotated[
        int | None, typer.Option("--components", help="number of components; default: all, at most 64")
    ] = None,
    pooled: Pooled = False,
    max_points: Annotated[int, typer.Option(help="samples at most")] = 100_000,
    seed: Seed = 0,
    out: OutWithTable = None,
) -> None:
    """Principal components of the latents: loadings and explained variance (those of the patterns: vaearr embed)."""
    check_out(out, BOTH)
    from vaearr.exploration import latent_pca

    found = latent_pca(store, run, count, pooled=pooled, max_points=max_points, seed=seed)
    write(
        found,
        out,
        heading="Principal components of the latents",
        more=tables(lambda: _loadings(found)),
    )
    shares, sums = found["explained_variance_ratio"].values, found["explained_variance_cumulative"].values
    for i, (share, total) in enumerate(zip(shares, sums, strict=True)):
        typer.echo(f"component {i + 1}: {share:.2%} of the variance, {total:.2%} so far")


def _loadings(found: Any) -> Any:
    """A row for each component: explained variance, then its loadings."""
    names = ["explained_variance", "explained_variance_ratio", "explained_variance_cumulative"]
    table = found[names].to_dataframe().reset_index()
    flat = found["loadings"].values.reshape(len(table), -1)
    inner = found["loadings"].shape[1:]
    import numpy as np

    for i, place in enumerate(np.ndindex(*inner)):
        table[f"latent_{'_'.join(map(str, place))}"] = flat[:, i]
    return table


@app.command()
def health(store: Store, run: RunName = DEFAULT_RUN, seed: Seed = 0, out: OutWithTable = None) -> None:
    """Disentanglement and health: KL, active units, correlation, the aggregate posterior against the prior."""
    check_out(out, BOTH)
    from vaearr.exploration import health as find

    found = find(store, run, seed=seed)
    columns = ["kl", "is_active", "aggregate_mean", "aggregate_std", "aggregate_kl", "kolmogorov", "wasserstein"]
    write(
        found,
        out,
        heading="Health of the latents",
        more=tables(lambda: found[columns].to_dataframe().reset_index()),
    )
    attrs = found.attrs
    kl = "" if attrs["kl_total"] is None else f", KL {attrs['kl_total']:.4g} nats per sample"
    typer.echo(f"{attrs['n_active']} of {found.sizes['latent']} latents active{kl}")
    from vaearr.views.spread import correlation_words, health_words

    typer.echo(correlation_words(found))
    for line in health_words(found):
        typer.echo(line)
    typer.echo("latent " + " ".join(f"{name:>14}" for name in columns))
    for i, latent in enumerate(found["latent"].values):
        typer.echo(f"{latent:>6} " + " ".join(f"{float(found[name][i]):>14.4g}" for name in columns))
    for warning in attrs["warnings"]:
        say(f"warning: {warning}")


@app.command()
def unusual(
    store: Store,
    run: RunName = DEFAULT_RUN,
    count: Annotated[int, typer.Option("--n", help="number of samples")] = 16,
    by: By = None,
    out: OutWithTable = None,
) -> None:
    """The samples farthest from the others in latent space, by Mahalanobis distance; a scan's sheet has the map."""
    check_out(out, BOTH)
    if count < 1:
        raise UsageError(f"--n is {count}; it must be at least 1.")
    from vaearr.exploration import out_of_distribution
    from vaearr.exploration import unusual as find

    maps = out_of_distribution(store, run)
    found = find(store, run, count, by=by, maps=maps)
    write(
        found,
        out,
        heading="Unusual samples",
        maps=maps,
        more=tables(lambda: found.drop_vars("input").reset_coords().to_dataframe().reset_index(drop=True)),
    )
    from vaearr.views.sheets import sample_words

    for i in range(found.sizes["point"]):
        one = found.isel(point=i)
        words = sample_words(one).replace("\n", ", ")
        p_value = f", p {float(one['p_value']):.3g}" if "p_value" in one else ""
        typer.echo(f"{i + 1}: {words}, distance {float(one['distance']):.4g}{p_value}")
