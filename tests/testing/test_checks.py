"""assert_valid() and count_computes(): they pass what is right and refuse what is wrong."""

from __future__ import annotations

import contextlib
import doctest

import dask
import numpy as np
import pytest

import vaearr.testing
from vaearr.errors import SchemaError
from vaearr.testing import assert_valid, count_computes, random_patterns_dataset


@pytest.fixture
def ds():
    return random_patterns_dataset({"y": 4, "x": 5}, roi=True, missing=3, runs=("vae", "b"))


def _outside(ds):
    return tuple(np.argwhere(~ds.roi.values)[0])


def _inside(ds):
    return tuple(np.argwhere(ds.roi.values)[0])


def test_valid_dataset_passes_in_any_order_of_dims(ds):
    assert_valid(ds)
    assert_valid(ds.assign(latents=ds.latents.transpose("latent", "x", "y"), roi=ds.roi.transpose()))


def test_layout_is_checked_first(ds):
    with pytest.raises(SchemaError):
        assert_valid(ds.drop_vars("patterns"))


@pytest.mark.parametrize("variable", ["latents", "latents_std", "reconstruction_error", "latents_b"])
def test_nan_exactly_outside(ds, variable):
    leaking, lacking = ds.copy(deep=True), ds.copy(deep=True)
    leaking[variable].values[_outside(ds)] = 1
    with pytest.raises(AssertionError, match="outside the ROI that are not NaN"):
        assert_valid(leaking)
    lacking[variable].values[_inside(ds)] = np.inf
    with pytest.raises(AssertionError, match="inside the ROI that are not finite"):
        assert_valid(lacking)


def test_without_roi_every_present_sample_counts(ds):
    with pytest.raises(AssertionError, match="not finite"):
        assert_valid(ds.drop_vars("roi"))


def test_negative_standard_deviation(ds):
    with pytest.raises(AssertionError, match="negative"):
        assert_valid(ds.assign(latents_std=-ds.latents_std))


def test_roi_holds_measured_samples_only(ds):
    with pytest.raises(AssertionError, match="not present"):
        assert_valid(ds.assign(roi=ds.roi | True))


def test_split_lies_in_the_roi_and_holds_known_values(ds):
    assert_valid(ds.assign(split=ds.roi.astype("int8")))
    with pytest.raises(AssertionError, match="outside the ROI; they must be 0"):
        assert_valid(ds.assign(split_b=ds.roi.astype("int8") * 0 + 1))
    with pytest.raises(AssertionError, match="do not declare"):
        assert_valid(ds.assign(split=ds.roi.astype("int8") * 3))


def test_undeclared_phase(ds):
    with pytest.raises(AssertionError, match="do not declare"):
        assert_valid(ds.assign(phase=ds.phase.copy(data=np.full(ds.phase.shape, 7, "int16"))))


def test_patterns_are_not_computed(ds):
    lazy = ds.chunk().assign(patterns=ds.patterns.chunk().map_blocks(_never, template=ds.patterns.chunk()))
    assert_valid(lazy)


def _never(block):
    raise AssertionError("patterns were computed")


def test_count_computes_counts():
    lazy = random_patterns_dataset(chunks={"y": 2})
    with count_computes() as computes:
        lazy.mean()
        assert len(computes) == 0
        lazy.compute()
        lazy.BC.mean().persist()
        dask.compute(lazy.BC.data, lazy.phase.data)
        np.asarray(lazy.BC)
    assert len(computes) == 4


def test_count_computes_raises():
    lazy = random_patterns_dataset(chunks={"y": 2})
    with count_computes(at_most=1):
        lazy.BC.compute()
    with pytest.raises(AssertionError, match="computed 1 times, at most 0"), count_computes(at_most=0):
        lazy.BC.compute()


def test_count_computes_raises_where_the_block_swallows_it():
    lazy = random_patterns_dataset(chunks={"y": 2})

    def careless():
        with count_computes(at_most=0), contextlib.suppress(AssertionError):
            lazy.BC.compute()

    with pytest.raises(AssertionError, match="not lazy"):
        careless()


def test_count_computes_leaves_the_scheduler_as_it_was():
    before = dask.config.get("scheduler", None)
    with count_computes():
        pass
    assert dask.config.get("scheduler", None) is before


def test_example_in_the_docstring_runs():
    assert doctest.testmod(vaearr.testing).failed == 0
