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
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.schema import grid

MASKS = arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 6))).filter(lambda m: m.any())


def _map(values: np.ndarray, dims: tuple[str, ...] = ("y", "x")) -> xr.DataArray:
    coords = {d: np.arange(size) * 0.5 for d, size in zip(dims, values.shape, strict=False)}
    return xr.DataArray(values, dims=(*dims, *(f"s{i}" for i in range(values.ndim - len(dims)))), coords=coords)


@pytest.mark.parametrize(
    "text",
    [
        "not BC > 45",
        "~(BC > 45)",
        "not (BC > 45 and BC > 45)",
        "not (not BC > 45)",
        "BC != 45",
        "not BC == 45",
        "BC > 45 or x >= 0",
        "(x >= 0) | ~(BC <= 45)",
        "x >= 0 and not (BC > 45 or BC < 20)",
        "0 <= x != BC",
    ],
)
@pytest.mark.parametrize("chunks", [None, {"y": 4}], ids=["plain", "dask"])
def test_point_without_a_value_is_never_kept(scan: xr.Dataset, text: str, chunks: dict[str, int] | None) -> None:
    holes = np.isnan(scan.BC.values)
    kept = grid.condition(scan if chunks is None else scan.chunk(chunks), text)
    assert kept.dtype == bool
    assert not kept.transpose("y", "x").values[holes].any()
    assert kept.values.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BC >", "cannot read the condition"),
        ("BD > 4", "no map 'BD'.*Did you mean 'BC'"),
        ("__import__('os').getcwd() == 1", "not a map, a number or a comparison"),
        ("BC", "no comparison"),
        ("BC and BC > 3", "no comparison or true/false map"),
        ("elements > 3", "pick one entry"),
        ("elements['Zr'] > 3", "no entry 'Zr'.*Fe"),
        ("BC in 3", "a comparison by <"),
    ],
)
def test_condition_refuses(scan: xr.Dataset, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid.roi(scan, where=text)


def test_empty_roi_says_what_each_condition_kept(scan: xr.Dataset) -> None:
    with pytest.raises(
        RoiError, match=r"is empty; of 77 scan points each condition kept: measured: 74; .*x.*: 22; BC > 900: 0"
    ):
        grid.roi(scan, x=(0, 1), where="BC > 900")


@given(MASKS, st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_samples_and_grid_are_inverse(mask: np.ndarray, seed: int) -> None:
    data = _map(np.random.default_rng(seed).normal(size=(*mask.shape, 2, 3)))
    roi = _map(mask)
    samples = grid.to_samples(data, roi)
    assert samples.dims == ("sample", "s0", "s1")
    np.testing.assert_array_equal(samples.values, data.values[mask])
    back = grid.to_grid(samples, roi)
    xr.testing.assert_equal(back, data.where(roi))
    assert grid.to_samples(back, roi).equals(samples)


def test_to_grid_refuses_what_does_not_fit(scan: xr.Dataset) -> None:
    roi = grid.roi(scan)
    with pytest.raises(SchemaError, match="5 samples for a ROI of 74"):
        grid.to_grid(np.zeros((5, 2)), roi)
    with pytest.raises(SchemaError, match="has no nan"):
        grid.to_grid(np.zeros(74, int), roi)
    for dtype, fill in (("u1", -1), ("u1", 256), ("i1", -129.0), ("u1", np.inf), ("bool", 2)):
        with pytest.raises(SchemaError, match="pass another fill="):
            grid.to_grid(np.zeros(74, dtype), roi, fill=fill)
    assert grid.to_grid(np.zeros(74, int), roi, fill=-1).min() == -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.astype(float),
            r"the ROI is float64 over \('y', 'x'\); expected boolean over \('y', 'x'\), as va.roi",
        ),
        (lambda m: m.isel(x=0), r"the ROI is bool over \('y',\); expected boolean over"),
        (lambda m: m.expand_dims(z=2), r"the ROI is bool over \('z', 'y', 'x'\)"),
        (
            lambda m: m.assign_coords(x=m.x + 0.5),
            "the ROI's coordinate 'x' is not the store's; make the ROI from this store",
        ),
        (lambda m: m[::-1], "coordinate 'y' is not the store's"),
        (lambda m: m[:, 1:], "coordinate 'x' is not the store's"),
        (lambda m: m.drop_vars("y"), "coordinate 'y' is not the store's"),
        (lambda m: m.values, "the ROI is a ndarray without dimensions; expected boolean over"),
    ],
    ids=["dtype", "fewer dims", "more dims", "moved", "reversed", "part", "no coordinate", "no labels"],
)
def test_check_map_names_the_difference(scan: xr.Dataset, change: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        grid.check_map(scan, change(grid.roi(scan)))  # type: ignore[operator]


@given(MASKS.filter(lambda m: m.sum() > 2), st.sampled_from(["blocks", "random"]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_split_divides_the_roi(mask: np.ndarray, method: str, seed: int) -> None:
    config = SplitConfig(method=method, fraction=0.2)
    parts = grid.split(_map(mask), config, seed=seed)
    np.testing.assert_array_equal(parts.values != n.OUTSIDE, mask)
    assert (parts == n.TRAIN).any()
    assert (parts == n.VALIDATION).any()
    xr.testing.assert_identical(parts, grid.split(_map(mask), config, seed=seed))


def test_split_keeps_whole_blocks() -> None:
    parts = grid.split(_map(np.ones((40, 48), bool)), SplitConfig(fraction=0.1, block=8), seed=3)
    held = (parts.values == n.VALIDATION).reshape(5, 8, 6, 8).mean((1, 3))
    assert set(held.ravel()) == {0.0, 1.0}
    assert 0.08 < (parts == n.VALIDATION).mean() < 0.14


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
