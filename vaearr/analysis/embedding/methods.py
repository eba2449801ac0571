"""The registered decompositions: what each finds first, what it gives at a scan point, what it says at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.embedding import endmembers as ends
from vaearr.analysis.embedding.nmf import check_independent, nnls
from vaearr.analysis.embedding.pca import fit_pca
from vaearr.analysis.embedding.stream import PatternStream, exact_device
from vaearr.analysis.embedding.work import Work
from vaearr.errors import UsageError
from vaearr.store import VariableSpec

Scores = Callable[[np.ndarray, torch.Tensor], dict[str, np.ndarray]]
Arrays = Mapping[str, Any]

COMPONENTS, MEAN, BACKGROUND, RESIDUAL = "components", "mean", "background", "residual"
VARIANCE, RATIO, CUMULATIVE = "explained_variance", "explained_variance_ratio", "explained_variance_cumulative"


@dataclass(frozen=True)
class Method:
    """A decomposition.

    fit: what is found before any score, as variables without navigation dims. maps: the variables over the navigation
    dims to come. scores: grid points `(b, n_nav)` and rows `(b, values)` -> their values of these variables. summary:
    attributes of the scores that are known when all maps are written.
    """

    fit: Callable[[Work], xr.Dataset]
    maps: Callable[[Work, xr.Dataset], dict[str, VariableSpec]]
    scores: Callable[[Work, xr.Dataset], Scores]
    summary: Callable[[Work, xr.Dataset, Arrays], dict[str, Any]]


def _stream(work: Work, background: torch.Tensor | np.ndarray) -> PatternStream:
    still = torch.as_tensor(np.asarray(background), dtype=torch.float32)
    return work.stream(still.view(schema.input_shape(work.ds)))


def fitted_stream(work: Work, fitted: xr.Dataset) -> PatternStream:
    """The preprocessed patterns of the region, with the background that was found."""
    return _stream(work, np.array(fitted[f"{work.name}_{BACKGROUND}"].values))


def _images(work: Work, rows: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Rows `(k, values)`, or one `(values,)`, as images over the signal dims."""
    signal = schema.signal_dims(work.ds)
    sizes = tuple(work.ds.sizes[dim] for dim in signal)
    lead = (work.component,) if rows.ndim == 2 else ()
    return (*lead, *signal), rows.reshape(*rows.shape[:-1], *sizes).astype(np.float32)


def _image(work: Work, rows: np.ndarray, long_name: str, **attrs: Any) -> tuple[Any, ...]:
    return *_images(work, rows), {"long_name": long_name, "units": "1", **attrs}


def _background(work: Work, stream: PatternStream) -> tuple[Any, ...]:
    still = stream.view.background.cpu().numpy().ravel()  # type: ignore[attr-defined]
    units = str(work.ds[n.PATTERNS].attrs.get("units", "1"))
    image = _image(work, still, "static background of the patterns", preprocess=work.preprocess.to_attrs())
    return *image[:2], image[2] | {"units": units}


def _numbers(work: Work, count: int, long_name: str) -> dict[str, Any]:
    return {work.component: (work.component, np.arange(count), {"long_name": long_name})}


def _fit_pca(work: Work) -> xr.Dataset:
    stream = _stream(work, work.still())
    part = stream.of(work.sample)
    found = fit_pca(
        part.passes,
        n_samples=part.n_samples,
        n_values=part.n_values,
        n_components=work.settings.n_components,
        seed=work.settings.seed,
    )
    about = found.facts | {"n_fitted": found.n_samples, "total_variance": found.total}
    share = {"units": "1", "comment": "of the total variance of all values"}
    dim, name = work.component, work.name
    return xr.Dataset(
        {
            f"{name}_{COMPONENTS}": _image(work, found.components, "principal component, of unit length", **about),
            f"{name}_{MEAN}": _image(work, found.mean, "mean of the preprocessed patterns"),
            f"{name}_{VARIANCE}": (dim, found.variance, {"long_name": "explained variance", "units": "1"}),
            f"{name}_{RATIO}": (dim, found.ratio, {"long_name": "explained share of the variance", **share}),
            f"{name}_{CUMULATIVE}": (
                dim,
                np.cumsum(found.ratio),
                {"long_name": "share of the variance explained up to here", **share},
            ),
            f"{name}_{BACKGROUND}": _background(work, stream),
        },
        coords=_numbers(work, len(found.variance), "principal component"),
    )


def _pca_maps(work: Work, fitted: xr.Dataset) -> dict[str, VariableSpec]:
    about: dict[str, Any] = {"long_name": "principal component score", "units": "1", "method": "pca"}
    about |= {k: v for k, v in fitted[f"{work.name}_{COMPONENTS}"].attrs.items() if k not in about}
    about |= {"preprocess": work.preprocess.to_attrs()}
    return {work.name: VariableSpec(dims=(*schema.navigation_dims(work.ds), work.component), attrs=about)}


def _pca_scores(work: Work, fitted: xr.Dataset) -> Scores:
    components, mean = _rows(work, fitted, COMPONENTS), _rows(work, fitted, MEAN)[0]

    def scores(points: np.ndarray, rows: torch.Tensor) -> dict[str, np.ndarray]:
        return {work.name: ((rows - mean) @ components.T).cpu().numpy()}

    return scores


def _rows(work: Work, fitted: xr.Dataset, what: str) -> torch.Tensor:
    """Stored images as float64 rows where the patterns are worked on."""
    values = np.array(fitted[f"{work.name}_{what}"].values, np.float64)
    count = fitted.sizes[work.component] if work.component in fitted[f"{work.name}_{what}"].dims else 1
    return torch.from_numpy(values.reshape(count, -1)).to(exact_device(work.device))


def _no_summary(work: Work, fitted: xr.Dataset, arrays: Arrays) -> dict[str, Any]:
    return {}


def _fit_nmf(work: Work) -> xr.Dataset:
    """Statistics of the region, then the endmembers; refuses negative values and endmembers that depend."""
    stream = _stream(work, work.still())
    mean, low, deviation = _statistics(stream)
    ends.check_amounts(low, "preprocessed patterns")
    members = _members(work, stream)
    images = ends.group_means(stream, members.chosen)
    check_independent(images @ images.T)
    about = {
        "endmembers": members.described,
        "mean_variance": deviation,
        "comment": "mean of the reference points, in preprocessed units",
    }
    name = work.name
    fitted = xr.Dataset(
        {
            f"{name}_{COMPONENTS}": _image(work, images, "endmember pattern", **about),
            f"{name}_{MEAN}": _image(work, mean, "mean of the preprocessed patterns"),
            f"{name}_{BACKGROUND}": _background(work, stream),
        },
        coords=_numbers(work, len(images), "endmember"),
    )
    return fitted.assign(_endmember_elements(work, members)) if work.settings.elements > 0 else fitted


def _members(work: Work, stream: PatternStream) -> ends.Members:
    settings = work.settings
    if settings.endmembers:
        return ends.at_coordinates(work.ds, work.roi, settings.endmembers)
    if settings.clusters:
        return ends.of_classes(work.ds, work.roi, settings.clusters)
    if settings.n_components is None:
        raise UsageError("say how many endmembers to look for (n_components), or name them (endmembers, clusters).")
    return ends.reference_windows(work.ds, stream, work.sample, settings.n_components, settings.seed)


def _statistics(stream: PatternStream) -> tuple[np.ndarray, float, float]:
    """Mean `(values,)`, least value, and mean squared distance from that mean per value, of all points."""
    pilot = total = None
    squares, low = 0.0, np.inf
    for rows in stream.passes():
        if pilot is None or total is None:
            pilot = rows.mean(0)
            total = torch.zeros_like(pilot)
        off = rows - pilot
        total += off.sum(0)
        squares += float(off.square().sum())
        low = min(low, float(rows.min())) if bool(torch.isfinite(off).all()) else np.nan
    assert pilot is not None
    assert total is not None
    shift = total / stream.n_samples
    variance = squares / stream.n_samples - float(shift.square().sum())
    return (pilot + shift).cpu().numpy(), low, variance / stream.n_values


def _endmember_elements(work: Work, members: ends.Members) -> dict[str, Any]:
    content = _elements(work)
    inside = work.roi & np.isfinite(content).all(0)
    ends.check_amounts(float(content[:, inside].min(initial=np.inf)) if inside.any() else np.nan, "element maps")
    used = members.chosen & inside
    if not used.reshape(len(used), -1).any(1).all():
        raise UsageError("an endmember has no point with element values; choose another one, or set elements=0.")
    means = np.stack([content[:, part].mean(1) for part in used])
    variance = float(((content[:, inside] - content[:, inside].mean(1, keepdims=True)) ** 2).mean())
    if variance <= 0:
        raise UsageError("the element maps are constant in the region, they cannot be weighed in; set elements=0.")
    attrs = {
        "long_name": "element content of the endmember",
        "units": str(work.ds[n.ELEMENTS].attrs.get("units", "1")),
        "weight": work.settings.elements,
        "mean_variance": variance,
        "n_missing": int((work.roi & ~inside).sum()),
    }
    return {f"{work.name}_{n.ELEMENTS}": ((work.component, n.ELEMENT), means, attrs)}


def _elements(work: Work) -> np.ndarray:
    """Element maps `(element, *grid)`, float64."""
    dims = (n.ELEMENT, *schema.navigation_dims(work.ds))
    return np.asarray(work.ds[n.ELEMENTS].transpose(*dims).values, np.float64)


def _nmf_maps(work: Work, fitted: xr.Dataset) -> dict[str, VariableSpec]:
    nav = schema.navigation_dims(work.ds)
    about: dict[str, Any] = {"long_name": "amount of the endmember", "units": "1", "method": "nmf"}
    about |= {"preprocess": work.preprocess.to_attrs()}
    misfit = {"long_name": "mean squared residual per detector pixel", "units": "1"}
    return {
        work.name: VariableSpec(dims=(*nav, work.component), attrs=about),
        f"{work.name}_{RESIDUAL}": VariableSpec(dims=nav, attrs=misfit),
    }


def _nmf_scores(work: Work, fitted: xr.Dataset) -> Scores:
    """Amounts by the Gram matrix; with elements, both misfits count in units of their variance over the region."""
    images = _rows(work, fitted, COMPONENTS)
    gram = (images @ images.T).cpu().numpy()
    elements = _element_products(work, fitted) if work.settings.elements > 0 else None
    share = 1.0
    if elements is not None:
        share = 1 / (fitted[f"{work.name}_{COMPONENTS}"].attrs["mean_variance"] * images.shape[1])
        gram = gram * share + elements[0]

    def scores(points: np.ndarray, rows: torch.Tensor) -> dict[str, np.ndarray]:
        products = (rows @ images.T).cpu().numpy() * share
        missing = np.zeros(len(points), bool)
        if elements is not None:
            further = elements[1](points)
            missing = np.isnan(further).any(1)
            products = products + np.where(missing[:, None], 0, further)
        amounts = nnls(gram, products)
        left = rows - torch.from_numpy(amounts).to(rows.device) @ images
        misfit = left.square().mean(1).cpu().numpy()
        amounts[missing], misfit[missing] = np.nan, np.nan
        return {work.name: amounts, f"{work.name}_{RESIDUAL}": misfit}

    return scores


def _element_products(work: Work, fitted: xr.Dataset) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The element part of the Gram matrix, and of the products at grid points; NaN where elements are missing."""
    of_ends = fitted[f"{work.name}_{n.ELEMENTS}"]
    means = np.asarray(of_ends.values, np.float64)
    weight = of_ends.attrs["weight"] / (of_ends.attrs["mean_variance"] * means.shape[1])
    content = _elements(work)
    return weight * means @ means.T, lambda points: weight * content[(slice(None), *points.T)].T @ means.T


def _nmf_summary(work: Work, fitted: xr.Dataset, arrays: Arrays) -> dict[str, Any]:
    """Mean squared error per value, and the share of the variance about the mean pattern that is explained."""
    misfit = np.asarray(arrays[f"{work.name}_{RESIDUAL}"][...], np.float64)[work.roi]
    known = np.isfinite(misfit)
    mse = float(misfit[known].mean()) if known.any() else float("nan")
    variance = float(fitted[f"{work.name}_{COMPONENTS}"].attrs["mean_variance"])
    about: dict[str, Any] = {
        "mse": mse,
        "mean_variance": variance,
        "r2": 1 - mse / variance if variance > 0 else None,
        "r2_comment": "1 - sum of squared residuals / sum of squared distances from the mean pattern of the region",
        "n_fitted": int(known.sum()),
        "endmembers": fitted[f"{work.name}_{COMPONENTS}"].attrs["endmembers"],
    }
    if work.settings.elements > 0:
        of_ends = fitted[f"{work.name}_{n.ELEMENTS}"]
        amounts = np.asarray(arrays[work.name][...], np.float64)[work.roi][known]
        off = _elements(work)[:, work.roi].T[known] - amounts @ of_ends.values
        error = float((off**2).mean())
        about |= {"mse_elements": error, "r2_elements": 1 - error / of_ends.attrs["mean_variance"]}
    return about


METHODS: dict[str, Method] = {
    n.PCA: Method(fit=_fit_pca, maps=_pca_maps, scores=_pca_scores, summary=_no_summary),
    n.NMF: Method(fit=_fit_nmf, maps=_nmf_maps, scores=_nmf_scores, summary=_nmf_summary),
}
