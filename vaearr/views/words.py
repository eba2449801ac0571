"""Results in words: `describe` says in short sentences what a result of any kind says, its warnings last."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.p_values import HIGH, LOW, P_ADJUSTED
from vaearr.analysis.association.partitions import ARI, ETA_SQUARED, MUTUAL, NMI, TIED
from vaearr.analysis.association.table import ASSOCIATION, METRIC, ranking
from vaearr.analysis.association.targets import TARGET
from vaearr.analysis.layers import top_layers
from vaearr.errors import UsageError, did_you_mean
from vaearr.models.card import as_record, ratio_words
from vaearr.views.common import brief
from vaearr.views.curves import classes_of, correlation_words, health_words
from vaearr.views.kinds import kind_of
from vaearr.views.pictures import channel_means
from vaearr.views.sheets import sample_words
from vaearr.views.spread import embedding_words

LEVEL = 0.05  # above, nothing is called significant
MOST_CLUSTERS = 10
LETTERS = 48  # of a layer's name
OF_HEALTH = ("kl", "is_active", "aggregate_mean", "aggregate_std", "aggregate_kl", "wasserstein")
STATISTICS = ("mean", "std", "min", "max", "logvar_mean", "logvar_std", "kl", "aggregate_std", "aggregate_kl")
Words = Callable[..., Iterable[str]]
WORDS: dict[str, Words] = {}


def describe(result: xr.Dataset | xr.DataArray, kind: str | None = None, **options: Any) -> list[str]:
    """A result in short sentences.

    kind: by default that of the result, as in `va.view`. `**options` are those of the kind: `top` of associations,
    partitions; `name` of the variable in which clusters or a decomposition lie. Raises UsageError for an unknown kind.
    """
    kind = kind_of(result) if kind is None else kind
    if kind not in WORDS:
        raise UsageError(f"no words are known for a result of kind {kind!r}.{did_you_mean(kind, sorted(WORDS))}")
    about = result[options["name"]] if "name" in options else result
    return [*WORDS[kind](result, **options), *(f"warning: {text}" for text in about.attrs.get("warnings", ()))]


def words(kind: str) -> Callable[[Words], Words]:
    """Register a function `(result, **options)` as the one that puts results of a kind into lines."""

    def register(function: Words) -> Words:
        WORDS[kind] = function
        return function

    return register


def row(values: Iterable[Any]) -> str:
    """Numbers beside each other."""
    return " ".join(f"{float(value):.4g}" for value in values)


def by(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows of a table, columns under each other: the first `left` ones to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust if i < left else str.rjust for i in range(len(widths))]
    return [
        "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)).rstrip()
        for row in rows
    ]


def table_of(ds: xr.Dataset, dim: str, columns: Sequence[str]) -> list[str]:
    """Variables over a dim under each other, beside its entries."""
    values = np.stack([ds[name].values.astype(float) for name in columns], 1)
    rows = [[f"{name}", *(f"{value:.4g}" for value in line)] for name, line in zip(ds[dim].values, values, strict=True)]
    return aligned([[dim, *columns], *rows])


# ---- lines made by one expression: a table of kinds


def each(ds: xr.Dataset, *names: str) -> Iterator[Any]:
    """The values of variables side by side."""
    return zip(*(ds[name].values for name in names), strict=True)


def _means(ds: xr.Dataset, means: np.ndarray) -> list[str]:
    counted = zip(*(ds[name].values for name in ("class", "n")), means, strict=True)
    return [f"{name}: n {int(count)}, {row(vector)}" for name, count, vector in counted]


WORDS |= {
    "embedding": lambda ds: [embedding_words(ds)],
    "latent_table": lambda ds: table_of(ds["summary"].to_dataset("statistic"), n.LATENT, [*ds["statistic"].values]),
    "health": lambda ds: [
        f"{ds.attrs['n_active']} of {ds.sizes['latent']} latents active"
        + ("" if ds.attrs["kl_total"] is None else f", KL {ds.attrs['kl_total']:.4g} nats per sample"),
        correlation_words(ds), *health_words(ds), *table_of(ds, n.LATENT, OF_HEALTH),
    ],
    "statistics": lambda ds: [
        f"run {ds.attrs['run']!r}: {ds.attrs['n']} samples, {ds.attrs['n_active']} of {ds.sizes['latent']} latents "
        f"active, KL {ds.attrs['kl_total']:.4g} nats per sample, largest correlation "
        f"{ds.attrs['largest_correlation']:.2f}",
        *table_of(ds, n.LATENT, STATISTICS),
    ],
    "prototypes": lambda ds: [
        *([f"without an encoded sample: {', '.join(ds.attrs['empty'])}"] if ds.attrs["empty"] else []),
        *_means(ds, channel_means(ds["latents"])),
    ],
    "activations": lambda ds: [
        f"{ds.attrs['n']} samples", *(_means(ds, ds["class_mean"].values) if "class_mean" in ds else []),
    ],
    "traversal": lambda ds: [
        f"from {ds.attrs['base']}",
        *(f"latent {i}: {v[0]:.4g} to {v[-1]:.4g} in {len(v)} steps" for i, v in each(ds, "latent_dim", "value")),
    ],
    "manifold": lambda ds: [
        f"{axis}s: {ds[axis].attrs['long_name']} from {float(ds[axis][0]):.4g} to {float(ds[axis][-1]):.4g}"
        for axis in ("column", "row")
    ],
    "path": lambda ds: [
        f"{', '.join(map(str, ds['axis'].values))}; others: {ds.attrs['base']}",
        *(
            f"{i} at {row(where)}: {row(z)}"
            for i, (where, z) in enumerate(zip(ds["position"].values, channel_means(ds["latents"]), strict=True), 1)
        ),
    ],
    "histograms": lambda ds: [
        *(f"latent {i}: {v[0]:.4g} to {v[-1]:.4g}, {ds.attrs['n']} samples" for i, v in each(ds, "latent", "edges")),
        *(f"{name}: {int(v[0].sum())} samples" for name, v in (each(ds, "class", "counts") if "class" in ds else ())),
    ],
    "interpolation": lambda ds: [
        f"{ds.attrs['method']}, {ds.sizes['step']} steps, distance of the ends {ds.attrs['distance']:.4g}"
    ],
    "histogram": lambda ds: [
        f"{ds['bin'].attrs['long_name']}: {ds.attrs['n']} points, {ds.attrs['n_missing']} missing",
        *(f"  {left:g} to below {left + ds.attrs['width']:g}: {count}" for left, count in each(ds, "bin", "count")),
    ],
}  # fmt: skip


@words("pairs")
def _pairs(ds: xr.Dataset) -> Iterator[str]:
    r = ds["correlation"].assign_coords(other=ds["latent"].values)
    both = [(int(x), int(y), float(r.sel(latent=x, other=y))) for x, y in each(ds, "x_dim", "y_dim")]
    for x, y, value in sorted(both, key=lambda one: -abs(one[2])):
        yield f"latent {x}, latent {y}: r = {value:.3f}"


@words("unusual")
def _unusual(ds: xr.Dataset) -> Iterator[str]:
    for i in range(ds.sizes["point"]):
        one = ds.isel(point=i)
        p_value = f", p {float(one['p_value']):.3g}" if "p_value" in one else ""
        where = sample_words(one).replace("\n", ", ")
        yield f"{i + 1}: {where}, distance {float(one['distance']):.4g}{p_value}"


@words("draws")
def _draws(ds: xr.Dataset) -> Iterator[str]:
    for number, z in each(ds, "sample", "latents"):
        if z.ndim == 1:
            yield f"{number}: {row(z)}"
        else:  # of spatial latents the size of each channel
            sizes = row(z.reshape(len(z), -1).std(1))
            yield f"{number}: {by(z.shape)}, standard deviation of each channel {sizes}"


@words("association")
def _association(table: xr.DataArray | xr.Dataset, top: int = 3) -> Iterator[str]:
    """One line per target and metric that names the strongest latents; tested ones with interval and adjusted p."""
    values = table[ASSOCIATION] if isinstance(table, xr.Dataset) else table
    labels = [str(name) for name in np.atleast_1d(values[TARGET].values)]
    width = max(map(len, labels))
    for label, n_points in zip(labels, np.atleast_1d(values["n"].values), strict=True):
        for metric in map(str, values[METRIC].values):
            parts = [f"latent {words}" for words in strongest(table, metric, label, top)]
            yield f"{label:{width}}  {metric}: {', '.join(parts) or 'no value'}  (n = {n_points})"


def strongest(table: xr.DataArray | xr.Dataset, metric: str, target: str, top: int) -> list[str]:
    """The latents that go most strongly with a target, such as `3 (+0.50, tied, p = 0.01)`: with all that is known."""
    values = table[ASSOCIATION] if isinstance(table, xr.Dataset) else table
    where = {METRIC: metric} | ({TARGET: target} if TARGET in values.dims else {})
    found = []
    for latent, value, tied in each(ranking(values, metric, where.get(TARGET), top), n.LATENT, "value", "is_tied"):
        notes = [short(value), *(["tied"] if tied else [])]
        if isinstance(table, xr.Dataset) and P_ADJUSTED in table:
            one = table.sel(where | {n.LATENT: latent})
            if LOW in one and np.isfinite(float(one[LOW])):
                notes.append(f"95 %: {short(float(one[LOW]))} to {short(float(one[HIGH]))}")
            p = float(one[P_ADJUSTED])
            notes.append(f"p = {p:.2g}{'' if p < LEVEL else ' n.s.'}")
        found.append(f"{latent} ({', '.join(notes)})")
    return found


def short(value: float) -> str:
    """A value with its sign, two digits at least."""
    return f"{value:+.2f}" if abs(value) >= 0.1 else f"{value:+.2g}"


@words("probe")
def _probe(found: xr.Dataset) -> Iterator[str]:
    """One line per target and set of features, with what each method tells, and of classes how many."""
    for target, features in itertools.product(found[TARGET].values, found["features"].values):
        one, parts = found.sel({TARGET: target, "features": features}), []
        for method in one["probe"].values[np.isfinite(one["score"].values)]:
            score, low, high, p = (float(one[name].sel(probe=method)) for name in ("score", "low", "high", "p_value"))
            notes = [f"95 %: {low:.2f} to {high:.2f}", *([f"p = {p:.2g}"] if np.isfinite(p) else [])]
            parts.append(f"{method} {score:.2f} ({', '.join(notes)})")
        judged = f"{int(one['n'])} points, {one['left_out'].item()} left out"
        yield f"{target} from {features}: {', '.join(parts)}; {judged}"
        if classes := classes_of(found, target):
            told = one["recall"].sel({"class": classes}).max("probe")
            yield "  " + ", ".join(f"{c.partition(': ')[2]} {float(told.sel({'class': c})):.2f}" for c in classes)


@words("partitions")
def _partitions(found: xr.Dataset, top: int = 3) -> Iterator[str]:
    """The latents whose clusters agree best with the reference's."""

    def best(name: str) -> list[xr.Dataset]:
        order = np.argsort(-found[name].fillna(-np.inf).values, kind="stable")
        return [found.isel({n.LATENT: i}) for i in order if np.isfinite(found[name].values[i])][:top]

    reference, k = found.attrs["reference_name"], found.attrs["k_reference"]
    parts = [
        f"latent {int(one[n.LATENT])} (ARI {float(one[ARI]):.2f}, NMI {float(one[NMI]):.2f}, k = {int(one['k'])}"
        f"{', tied' if one[TIED] else ''})"
        for one in best(ARI)
    ]
    yield f"groups of {reference} (k = {k}): {', '.join(parts) or 'no value'}"
    for name in (ETA_SQUARED, MUTUAL):
        if name in found:
            listed = ", ".join(f"latent {int(one[n.LATENT])} ({float(one[name]):.2f})" for one in best(name))
            yield f"{reference}  {name}: {listed}"


@words("clusters")
def _clusters(found: xr.Dataset, name: str = n.CLUSTERS) -> Iterator[str]:
    """Method, the ten largest, noise."""
    attrs, counts = found[name].attrs, found["count"].values.astype(int)
    by = ", ".join(attrs["features"][:4]) + (f" … ({len(attrs['features'])})" if len(attrs["features"]) > 4 else "")
    points = "samples" if n.SAMPLE in found[name].dims else "scan points"
    yield f"{attrs['k']} clusters of {attrs['n']} {points} by {attrs['method']} of {by}"
    largest = np.argsort(-counts, kind="stable")
    for i in largest[:MOST_CLUSTERS]:
        stability = attrs["stability"][i] if attrs["stability"] else None
        known = "" if stability is None else f", {attrs['stability_is']} {stability:.2f}"
        yield f"cluster {int(found['cluster'][i])}: {counts[i]} points ({counts[i] / attrs['n']:.1%}){known}"
    if rest := len(largest[MOST_CLUSTERS:]):
        yield f"and {rest} smaller cluster{'s' * (rest > 1)}, {counts[largest[MOST_CLUSTERS:]].sum()} points"
    if attrs["n_noise"]:
        yield f"noise: {attrs['n_noise']} points ({attrs['n_noise'] / attrs['n']:.1%})"
    if attrs["approximation"]:
        yield f"approximation: {attrs['approximation']}"


@words("decomposition")
def _decomposition(ds: xr.Dataset, name: str | None = None) -> Iterator[str]:
    """Components and how much of the patterns they explain."""
    name = name or str(ds.attrs.get("name", n.PCA))
    scores, explained = ds[name], f"{name}_explained_variance_cumulative"
    if explained in ds:
        share = f"{float(ds[explained][-1]):.1%} of the patterns' variance, noise included, explained"
    else:
        r2 = scores.attrs.get("r2")
        share = f"mean squared error {scores.attrs['mse']:.4g}" + ("" if r2 is None else f", R^2 {r2:.3f}")
    points = f"{scores.attrs['n_fitted']} {'samples' if n.SAMPLE in scores.dims else 'scan points'}"
    yield f"{name}: {scores.sizes[f'{name}_{n.COMPONENT}']} components of {points}, {share}"
    yield f"next: 'vaearr associate STORE --variable {name}', or cluster by it with --feature {name}"


@words("latent_pca")
def _components(ds: xr.Dataset) -> Iterator[str]:
    shares = each(ds, "explained_variance_ratio", "explained_variance_cumulative")
    for i, (share, total) in enumerate(shares, 1):
        yield f"component {i}: {share:.2%} of the variance, {total:.2%} so far"


@words("layers")
def _layers(found: xr.Dataset) -> Iterator[str]:
    """The layers that differ most as a table, largest relative L2 first; then latent and output."""
    is_many = "pair" in found.dims
    ends = np.flatnonzero(np.isin(found["part"].values.astype(str), ("latent", "output")))
    table = [["layer", "class", "part", "order", "relative L2", "L2", "RMS", "cosine", *["p (t, Holm)"] * is_many]]
    for i in [*top_layers(found, int(found.attrs["top"])), *ends]:
        one, mean = found.isel(layer=i), "_mean" * is_many
        relative, l2, rms, cosine = (float(one[f"{key}{mean}"]) for key in ("relative_l2", "l2", "rms", "cosine"))
        spread = f" ± {float(one['relative_l2_std']):.4f}" if is_many else ""
        cells = [brief(one["layer"].item(), LETTERS), *(str(one[about].item()) for about in ("kind", "part", "order"))]
        cells += [f"{relative:.4f}{spread}", f"{l2:.4g}", f"{rms:.4g}", f"{cosine:.4f}"]
        p = float(one["t_p_adjusted"]) if is_many else np.nan
        table.append(cells + [f"{p:.3g}" if np.isfinite(p) else ""] * is_many)
    of = f"{found.sizes['pair']} pairs, mean ± std" if is_many else "one pair"
    yield f"layers that differ most, of {found.sizes['layer']} ({of})"
    yield from aligned(table)
    if is_many:
        p_values = found["t_p_adjusted"].values[np.isfinite(found["t_p_adjusted"].values)]
        clear = f"{(p_values < LEVEL).sum()} of {p_values.size} layers below {LEVEL:g} after Holm"
        yield f"paired t-test of the change of a layer's RMS, b - a: {clear}"


@words("reconstruction")
def _reconstruction(found: xr.Dataset) -> Iterator[str]:
    """A line for each file, then the numbers of all samples and of the parts of the split."""
    attrs, metrics = found.attrs, [str(name) for name in found["metric"].values]
    if "file" in found.dims:
        yield from table_of(found, "file", metrics)
    span = {"sample": "of each input", "dtype": f"{attrs['data_range']}, of the stored type"}
    yield (
        f"{attrs['n']} sample{'s' * (attrs['n'] != 1)} of run {attrs['run']!r} in {attrs['scale']} units; data range "
        f"{span.get(attrs['data_range_is'], attrs['data_range'])}; compression {attrs['compression_ratio']:.4g} : 1"
    )
    if attrs["given_back"]:
        yield f"each reconstruction has from its input, not from the network: {', '.join(attrs['given_back'])}"
    for part, metric in itertools.product(map(str, found["part"].values), metrics):
        number, of_all = (int(found["count"].sel(part=which, metric=metric)) for which in (part, "all"))
        if number and (part == "all" or number != of_all):
            mean, std = found["summary"].sel(part=part, metric=metric, statistic=["mean", "std"]).values
            units = found[metric].attrs["units"]
            yield f"{part}: {metric} {mean:.4g} ± {std:.2g}{f' {units}' * (units != '1')} (n = {number})"


@words("fidelity")
def _fidelity(found: xr.Dataset) -> Iterator[str]:
    """How far draws are from the data, beside what else is."""
    attrs = found.attrs
    features = f"{attrs['features']} ({attrs['n_features']})"
    yield f"run {attrs['run']!r}, reference: {attrs['part']} data; features: {features}"
    table = [["", "n", "against", "Fréchet"]]
    names = (f"draws ({attrs['source']})", "reconstructions", "training against validation")
    for name, (count, reference, frechet) in zip(names, each(found, "n", "n_reference", "frechet"), strict=True):
        table.append([name, f"{count}", f"{reference}", f"{frechet:.5g}"])
    yield from aligned(table)
    for axis in found["axis"].values if "axis" in found.dims else ():
        slices = ", ".join(f"{float(value):.5g}" for value in found["frechet_of_axis"].sel(axis=axis))
        yield f"Fréchet of slices along {axis}: {slices}"


@words("nearest")
def _nearest(found: xr.Dataset) -> Iterator[str]:
    """Whether draws lie nearer to the training data than held-out samples do."""
    attrs, held_out = found.attrs, ""
    if found.sizes["held_out"]:
        ratio = "not defined" if attrs["ratio"] is None else f"{attrs['ratio']:.3g}"
        held_out = (
            f", held-out samples at {float(found['held_out_distance'].median()):.4g}; ratio {ratio}, p "
            f"{attrs['p_value']:.2g}; {attrs['share_near']:.0%} of the draws nearer than 95% of held-out samples"
        )
    yield f"nearest training latent: draws at {float(found['distance'].median()):.4g} (median){held_out}"
    yield attrs["conclusion"]


@words("score")
def _score(found: xr.Dataset) -> Iterator[str]:
    """How well a reader told drawn from real."""
    yield found.attrs["sentence"]
    for truth in found["truth"].values:
        counts = found["confusion"].sel(truth=truth)
        yield f"{truth}: " + ", ".join(f"{int(counts.sel(answer=a))} said {a}" for a in found["answer"].values)
    p = "none: only one kind was answered" if found.attrs["p_value"] is None else f"{found.attrs['p_value']:.3g}"
    yield f"binomial p {p}; Fisher p {found.attrs['fisher_p']:.3g}; {found.attrs['n_unanswered']} not answered"


@words("network")
def _network(card: xr.Dataset) -> Iterator[str]:
    """The numbers of the whole, then a line for each layer in order of execution."""
    a = as_record(card)
    heads, stride = a["n_parameters_heads"], f", {by(a['stride'])} pixels per position" if a["stride"] else ""
    yield f"{a['network']}: {a['n_layers']} layers, {a['n_parameters']:,} parameters, {a['weights_MB']:.3g} MB"
    parts = ", ".join(f"{a[f'n_parameters_{part}']:,} in the {part}" for part in ("encoder", "decoder"))
    yield f"  {parts}" + (f", {heads:,} elsewhere (heads)" if heads else "")
    yield f"  input {by(a['input_shape'])}, latent {by(a['latent_shape'])}{stride}"
    yield f"  {ratio_words(a['compression'])} values of the input per value of the latent"
    rows = [["layer", "kind", "output", "parameters"]]
    for layer in a["layers"]:
        kind = layer["kind"] if layer["part"] in ("encoder", "decoder") else ""
        count = f"{layer['n_parameters']:,}" if layer["n_parameters"] else ""
        rows.append([brief(layer["layer"], LETTERS), kind, by(layer["shape"]), count])
    yield from (f"  {line}" for line in aligned(rows, left=3))
