"""Many pairs: means and spreads as by hand, a test that holds its level, pairs that fail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vaearr.errors import DataError, UsageError
from vaearr.layers import Pair, compare_layers, compare_pairs, paired_tests
from vaearr.layers.measures import MEASURES

from .conftest import MakeModel


def test_pairs_are_the_single_comparisons(make_model: MakeModel, images: np.ndarray) -> None:
    model = make_model()
    done: list[int] = []
    found = compare_pairs(model, [(images[i], images[i + 4]) for i in range(4)], top=3, on_pair=done.append)
    single = [compare_layers(model, images[i], images[i + 4]) for i in range(4)]
    for name in MEASURES:
        values = np.stack([one[name] for one in single])
        np.testing.assert_array_equal(found[name], values)
        np.testing.assert_allclose(found[f"{name}_mean"], values.mean(0))
        np.testing.assert_allclose(found[f"{name}_std"], values.std(0, ddof=1))
        np.testing.assert_array_equal(found[f"n_{name}"], 4)
    maps = np.stack([one["difference_map_0"] for one in single])
    np.testing.assert_allclose(found["difference_map_0"], np.sqrt((maps**2).mean(0)), rtol=1e-5)
    assert done == [1, 2, 3, 4]
    assert list(found["pair"].values) == ["0", "1", "2", "3"]
    assert found.attrs["n"] == 4
    assert len(found.attrs["maps"]) == 3
    assert "no adjusted p-value of the Wilcoxon test can be below" in found.attrs["warnings"][0]


def test_change_is_signed_and_adjusted_over_layers(make_model: MakeModel, images: np.ndarray) -> None:
    model = make_model()
    found = compare_pairs(model, [(images[i], images[i + 4]) for i in range(4)])
    back = compare_pairs(model, [(images[i + 4], images[i]) for i in range(4)])
    np.testing.assert_array_equal(found["rms_change_mean"], -back["rms_change_mean"])
    np.testing.assert_array_equal(found["t_p_value"], back["t_p_value"])
    np.testing.assert_array_equal(found["l2"], back["l2"])
    at = found.sel(layer="input")  # z-scored: its size is fixed, the rest is rounding
    assert float(at["t"]) == 0
    assert float(at["t_p_value"]) == float(at["wilcoxon_p_value"]) == 1
    tested = np.isfinite(found["t_p_adjusted"].values)
    np.testing.assert_array_equal(tested, np.isin(found["part"].values, ["encoder", "decoder"]))
    p = found["t_p_value"].values[tested]
    want = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(p.size, 0, -1)))
    np.testing.assert_allclose(np.sort(found["t_p_adjusted"].values[tested]), np.sort(want))


def test_same_pairs_change_nothing(make_model: MakeModel, images: np.ndarray) -> None:
    found = compare_pairs(make_model(), [(image, image) for image in images[:3]])
    assert float(found["l2"].max()) == 0
    np.testing.assert_array_equal(found["t"], 0)
    np.testing.assert_array_equal(found["t_p_value"], 1)


def test_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, (2, 12, 3))
    found = paired_tests(b - a)
    t, wilcoxon = stats.ttest_rel(b, a), [stats.wilcoxon(b[:, i], a[:, i]) for i in range(3)]
    np.testing.assert_allclose(found["t"], t.statistic)
    np.testing.assert_allclose(found["t_p_value"], t.pvalue)
    np.testing.assert_allclose(found["wilcoxon_p_value"], [one.pvalue for one in wilcoxon])
    np.testing.assert_allclose(found["effect_size"], (b - a).mean(0) / (b - a).std(0, ddof=1))


def test_tests_hold_their_level_where_nothing_changes() -> None:
    found = paired_tests(np.random.default_rng(1).normal(size=(15, 2000)))
    for name in ("t_p_value", "wilcoxon_p_value"):
        assert np.mean(found[name] < 0.05) == pytest.approx(0.05, abs=0.015)


def test_one_pair_has_no_spread(make_model: MakeModel, images: np.ndarray) -> None:
    found = compare_pairs(make_model(), [(images[0], images[1])])
    for name in ("l2_std", "t", "t_p_value", "wilcoxon_p_value", "t_p_adjusted", "rms_change_std"):
        assert np.isnan(found[name]).all(), name
    assert np.isfinite(found["l2_mean"]).all()
    assert "one pair has no spread" in found.attrs["warnings"][0]


def test_pairs_that_fail_are_counted_and_named(make_model: MakeModel, images: np.ndarray) -> None:
    model = make_model()

    def missing() -> tuple[np.ndarray, np.ndarray]:
        raise DataError("three.png is cut off.")

    pairs = [Pair("one", lambda: (images[0], images[1])), Pair("two", lambda: (images[0], images[0, 0]))]
    pairs += [Pair("three", missing), Pair("four", lambda: (images[2], images[3]))]
    with pytest.raises(
        DataError, match=r"2 of 4 pairs cannot be compared: two: sample b has shape.*three: three.png is"
    ):
        compare_pairs(model, pairs)
    found = compare_pairs(model, pairs, skip_bad=True)
    assert list(found["pair"].values) == ["one", "four"]
    assert [text.partition(":")[0] for text in found.attrs["failed"]] == ["two", "three"]
    with pytest.raises(DataError, match=r"1 of 1 pairs cannot be compared.*none is left"):
        compare_pairs(model, pairs[1:2], skip_bad=True)
    with pytest.raises(DataError, match="no pair to compare"):
        compare_pairs(model, [])
    with pytest.raises(UsageError, match="no level"):
        compare_pairs(model, pairs, level="x", skip_bad=True)
