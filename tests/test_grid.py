"""ROI, split, samples and back."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaearr import names as n
from vaearr.config import SplitConfig
from vaearr.errors import RoiError, SchemaError
from vaearr.schema import grid

MASKS = arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 6))).filter(lambda m: m.any())


def _map(values: np.ndarray, dims: tuple[str, ...] = ("y", "x")) -> xr.DataArray:
    coords = {d: np.arange(size) * 0.5 for d, size in zip(dims, values.shape, strict=False)}
    return xr.DataArray(
        values, dims=(*dims, *(f"s{i}" for i in range(values.ndim - len(dims)))), coords=coords
    )


def test_empty_roi_says_what_each_condition_kept(scan: xr.Dataset) -> None:
    with pytest.raises(
        RoiError,
        match=r"is empty; of 77 scan points each condition kept: measured: 74; .*x.*: 22; BC > 900: 0",
    ):
        grid.roi(scan, x=(0, 1), where="BC > 900")


def test_to_grid_refuses_what_does_not_fit(scan: xr.Dataset) -> None:
    roi = grid.roi(scan)
    samples = grid.to_samples(scan.BC, roi)
    with pytest.raises(
        SchemaError,
        match=r"a ndarray with no dims and do not say where they belong.*samples\.copy\(data=values\)",
    ):
        grid.to_grid(samples.values, roi)
    with pytest.raises(
        SchemaError, match=r"carry the coordinates \['x'\], expected \['x', 'y'\].*va\.to_samples"
    ):
        grid.to_grid(samples.drop_vars("y"), roi)
    outside = grid.to_samples(scan.BC, ~roi)[0]
    for others in (
        samples[:5],
        samples.assign_coords(x=samples.x + 99),
        samples[[0, *range(73)]],
        xr.concat([samples[1:], outside], "sample"),
    ):
        with pytest.raises(
            SchemaError, match=r"the ROI has samples at other y, x; select the same points"
        ):
            grid.to_grid(others, roi)
    with pytest.raises(SchemaError, match="has no nan"):
        grid.to_grid(samples.astype(int), roi)
    for dtype, fill in (("u1", -1), ("u1", 256), ("i1", -129.0), ("u1", np.inf), ("bool", 2)):
        with pytest.raises(SchemaError, match="pass another fill="):
            grid.to_grid(samples.astype(dtype), roi, fill=fill)
    assert grid.to_grid(samples.astype(int), roi, fill=-1).min() == -1


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, seed=st.integers(0, 99), has_coordinates=st.booleans())
def test_samples_go_back_to_where_they_came_from_in_any_order(
    mask: np.ndarray, seed: int, has_coordinates: bool
) -> None:
    rng = np.random.default_rng(seed)
    data, roi = _map(rng.normal(size=(*mask.shape, 2))), _map(mask)
    if not has_coordinates:
        data, roi = data.drop_vars(["y", "x"]), roi.drop_vars(["y", "x"])
    samples = grid.to_samples(data, roi)
    permuted = samples.isel(sample=rng.permutation(samples.sizes["sample"]))
    np.testing.assert_array_equal(grid.to_grid(permuted, roi), data.where(roi))


def test_samples_of_a_collection_go_back_to_where_they_came_from() -> None:
    data, roi = (
        xr.DataArray(np.arange(5.0), dims="sample"),
        xr.DataArray([True, False, True, True, True], dims="sample"),
    )
    back = grid.to_grid(grid.to_samples(data, roi)[::-1], roi)
    np.testing.assert_array_equal(back, [0, np.nan, 2, 3, 4])


def _by(*values: object) -> xr.DataArray:
    return xr.DataArray(np.array(values), dims="sample", coords={"sample": np.arange(len(values))})


@settings(max_examples=60, deadline=None)
@given(
    member=st.lists(st.integers(0, 6), min_size=2, max_size=60).filter(lambda m: len(set(m)) > 1),
    fraction=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    seed=st.integers(0, 50),
)
def test_no_group_crosses_the_split(member: list[int], fraction: float, seed: int) -> None:
    by = _by(*(f"p{i}" for i in member))
    config = SplitConfig(method="groups", fraction=fraction)
    parts = grid.split(xr.ones_like(by, bool), config, seed=seed, by=by)
    held, trained = (set(by.values[parts.values == part]) for part in (n.VALIDATION, n.TRAIN))
    assert not held & trained
    assert trained
    assert bool(held) == (fraction > 0)
    xr.testing.assert_identical(parts, grid.split(xr.ones_like(by, bool), config, seed=seed, by=by))


@settings(max_examples=60, deadline=None)
@given(
    member=st.lists(st.integers(-1, 3), min_size=2, max_size=60),
    fraction=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    seed=st.integers(0, 50),
)
def test_each_class_gives_its_share(member: list[int], fraction: float, seed: int) -> None:
    by = _by(*member)
    config = SplitConfig(method="stratified", fraction=fraction)
    parts = grid.split(xr.ones_like(by, bool), config, seed=seed, by=by)
    for code in set(member):
        own = parts.values[by.values == code]
        held = int((own == n.VALIDATION).sum())
        assert held < len(own)
        assert abs(held - fraction * len(own)) <= 1
        assert bool(held) == (fraction > 0 and len(own) > 1)
