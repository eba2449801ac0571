"""How much features tell together, judged at groups that were left out; and maps filled from labels
of some points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

import vaearr as va
from vaearr.errors import ExistsError, RoiError, SchemaError, UsageError

from .harness import vaearr

NY, NX = 36, 44


def smooth(seed: int, count: int = 1) -> np.ndarray:
    """Smooth random maps of deviation about 1, `(y, x, count)`."""
    rng = np.random.default_rng(seed)
    maps = np.stack(
        [gaussian_filter(rng.normal(size=(NY, NX)), 3, mode="wrap") for _ in range(count)], -1
    )
    return maps / maps.std()


def as_map(values: np.ndarray, name: str, **attrs: object) -> xr.DataArray:
    dims = ("y", "x", "latent")[: values.ndim]
    return xr.DataArray(
        values, {"y": np.arange(NY) * 0.5, "x": np.arange(NX) * 0.5}, dims, name, attrs
    )


@pytest.fixture(scope="module")
def latents() -> xr.DataArray:
    return as_map(smooth(1, 6), "latents")


@pytest.fixture(scope="module")
def phase(latents: xr.DataArray) -> xr.DataArray:
    codes = (latents.values[..., 0] + 0.3 * latents.values[..., 1] > 0.2).astype("i2")
    codes[0, 0] = -1
    return as_map(codes, "phase", flag_values=[-1, 0, 1], flag_meanings="not_indexed fcc bcc")


def test_what_latents_hold_is_found_and_what_they_do_not_hold_is_not(latents: xr.DataArray) -> None:
    mixed = latents @ xr.DataArray([1, -1, 0.5, 0, 2, 1], dims="latent") + 0.3 * smooth(2)[..., 0]
    targets = xr.Dataset({"mixed": mixed, "other": as_map(smooth(3)[..., 0], "other")})
    found = va.probe(latents, targets).sel(features="latents", probe="ridge")
    mixed_score, other_score = found.score.values
    assert mixed_score > 0.95
    assert other_score < 0.1
    assert (found.low < found.score).all()
    assert (found.score < found.high).all()
    assert found.p_value.sel(target="mixed") == 0.01
    assert found.p_value.sel(target="other") > 0.05
    assert (found.n == NY * NX).all()
    assert (found.n_groups > 3).all()


def test_single_points_left_out_of_a_smooth_map_flatter() -> None:
    """Why blocks are the default: smooth features tell any smooth map to the neighbours of what was
    learned.
    """
    many, other = as_map(smooth(5, 9), "latents"), as_map(smooth(6)[..., 0], "other")
    score = {
        by: float(va.probe(many, other, by=by, n_permutations=0).score.max())
        for by in ("random", "blocks")
    }
    assert score["random"] > 0.15
    assert score["blocks"] < score["random"] - 0.15


def test_p_values_of_unrelated_maps_are_spread(latents: xr.DataArray) -> None:
    others = xr.Dataset({f"m{i}": as_map(smooth(100 + i)[..., 0], "m") for i in range(24)})
    p = va.probe(latents, others, n_permutations=39).p_value.sel(probe="ridge").values.ravel()
    assert (p <= 0.1).sum() <= 7
    assert p.max() > 0.5


def test_classes_are_told_with_a_recall_of_each(latents: xr.DataArray, phase: xr.DataArray) -> None:
    sets = xr.Dataset(
        {"latents": latents, "noise": as_map(smooth(9, 3), "noise").rename(latent="noise_dim")}
    )
    found = va.probe(sets, phase)
    score = found.score.sel(target="phase")
    assert (score.sel(features="latents", probe=["logistic", "neighbours"]) > 0.8).all()
    assert (score.sel(features="noise", probe=["logistic", "neighbours"]) < 0.7).all()
    assert score.sel(probe="ridge").isnull().all()
    recall = found.recall.sel(features="latents", probe="logistic")
    assert recall["class"].values.tolist() == ["phase: fcc", "phase: bcc"]
    np.testing.assert_allclose(recall.mean(), score.sel(features="latents", probe="logistic"))
    assert int(found.n.item()) == NY * NX - 1
    assert "logistic" in " ".join(va.describe(found))


def test_whole_groups_are_left_out(latents: xr.DataArray) -> None:
    """A value that each grain has by chance is told from its neighbours, never from other grains."""
    grain = as_map((np.arange(NY)[:, None] // 6) * 10 + np.arange(NX)[None] // 6, "grain")
    value = as_map(np.random.default_rng(0).normal(size=200)[grain.values], "value")
    place = as_map(np.stack(np.indices((NY, NX)), -1).astype(float), "latents")
    by_grain = va.probe(place, value, by=grain)
    assert int(by_grain.n_groups.item()) == len(np.unique(grain))
    assert by_grain.left_out.item() == "grain"
    assert float(by_grain.score.sel(probe="ridge").item()) < 0.1
    assert float(by_grain.p_value.sel(probe="ridge").item()) > 0.05
    with pytest.raises(UsageError, match="one group only"):
        va.probe(latents, value, by=grain * 0)


def test_subjects_of_a_collection_stay_together(latents: xr.DataArray) -> None:
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(30), 4)
    features = xr.DataArray(
        rng.normal(size=(120, 3)),
        {"subject": ("sample", [f"s{i}" for i in subject])},
        ("sample", "latent"),
    )
    age = xr.DataArray(rng.normal(size=30)[subject], dims="sample", name="age")
    found = va.probe(features.rename("latents"), age)
    assert found.left_out.item() == "subject"
    assert int(found.n_groups.item()) == 30
    plain = va.probe(features.drop_vars("subject").rename("latents"), age, n_permutations=0)
    assert plain.left_out.item() == "single samples"


def test_refusals_say_what_is_wrong(latents: xr.DataArray, phase: xr.DataArray) -> None:
    with pytest.raises(UsageError, match="no groups 'grains' to leave out"):
        va.probe(latents, phase, by="grains")
    with pytest.raises(UsageError, match="one class only"):
        va.probe(latents, phase.where(phase < 0, 0).astype("i2").assign_attrs(phase.attrs))
    with pytest.raises(RoiError, match="points"):
        va.probe(latents, latents[..., 0].where(latents.y < 0).rename("t"))
    with pytest.raises(SchemaError, match="coordinate"):
        va.probe(latents, phase.isel(x=slice(0, 9)))


@pytest.mark.parametrize("setting", [{"run": "nonsense"}, {"name": "mine"}, {"targets": ("BC",)}])
def test_settings_of_stores_are_refused_for_arrays(
    setting: dict[str, object], latents: xr.DataArray, phase: xr.DataArray
) -> None:
    (name,) = setting
    with pytest.raises(UsageError, match=f"probe has no argument '{name}'"):
        va.probe(latents, phase, **setting)


def test_a_table_of_a_store_is_made_once(known_store: Path) -> None:
    run = va.load_run(known_store, "theirs")
    found = run.probe(
        targets=("BC", "phase"),
        features=("latents", "patterns"),
        n_permutations=9,
    )
    assert found.score.sel(target="BC", probe="ridge").notnull().all()
    ds = xr.open_zarr(known_store)
    kept = va.store.open_table(known_store, "theirs", "probe")
    assert {"score", "low", "high", "p_value", "recall"} <= set(kept)
    again = run.probe(
        targets=("BC", "phase"),
        features=("latents", "patterns"),
        n_permutations=9,
    )
    np.testing.assert_array_equal(again.score, found.score)
    of_run = run.probe(targets=("BC",), n_permutations=0, name="of_run")
    of_dataset = va.load_run(ds, "theirs").probe(targets=("BC",), n_permutations=0, name="of_run")
    np.testing.assert_array_equal(of_run.score, of_dataset.score)
    with pytest.raises(ExistsError, match="n_permutations"):
        run.probe(targets=("BC", "phase"), features=("latents", "patterns"))
    out = vaearr(
        "probe",
        known_store,
        "--run",
        "theirs",
        "--target",
        "BC",
        "--name",
        "bc",
        "--set",
        "n_permutations=9",
    ).out
    assert "R2 of numbers" in out
    assert "left out: " in out
    assert (
        "no feature 'latnets'"
        in vaearr("probe", known_store, "--run", "theirs", "--feature", "latnets", code=66).error
    )
