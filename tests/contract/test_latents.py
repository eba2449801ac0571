"""Latents as they are written, described, exported and handed on (features 45 to 50)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr.errors import UsageError

from .harness import BAD_DATA, tree, vaearr, zarr
from .record import read_csv


def test_latents_are_the_posterior_means(trained_template: Path) -> None:
    """What is stored is what the model gives, no draw; NaN outside the region, never partly."""
    ds, model = zarr(trained_template), va.load_model(trained_template)
    encoded = np.asarray(model.encode(ds.patterns.values))
    inside = ds.roi.values
    np.testing.assert_allclose(ds.latents.values[inside], encoded[inside], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(model.encode(ds.patterns.values[:2])), encoded[:2])
    assert np.isnan(ds.latents.values[~inside]).all()
    assert (ds.latents_std.values[inside] > 0).all()
    assert ds.latents.dtype == ds.latents_std.dtype == "float32"
    for name in ("latents", "latents_std", "reconstruction_error"):
        assert ds[name].attrs["long_name"]


def test_the_model_is_lazy_on_dask_arrays(trained_template: Path) -> None:
    ds, model = va.open_store(trained_template), va.load_model(trained_template)
    lazy = model.encode(ds.patterns.astype("f4").chunk(x=7))
    assert lazy.chunks is not None, "nothing is computed before it is asked for"
    assert (lazy.name, lazy.dims, set(lazy.coords)) == (
        "latents",
        ("y", "x", "latent"),
        {"y", "x", "latent"},
    )
    known = model.encode(ds.patterns.astype("f4").load())
    np.testing.assert_allclose(lazy.values, known.values, rtol=1e-4, atol=1e-5)
    inside = ds.roi.values
    np.testing.assert_allclose(
        known.values[inside], ds.latents.values[inside], rtol=1e-4, atol=1e-5
    )


def test_batches_say_where_their_samples_are(trained_template: Path) -> None:
    """So that what is made of them can be put back."""
    ds = va.open_store(trained_template)
    made = np.zeros(ds.patterns.shape, ds.patterns.dtype)
    for batch in va.batches(ds, batch_size=50, seed=3).epoch(0):
        made[tuple(batch.index.T)] = batch.patterns[:, 0].numpy()
    present = ds.present.values
    np.testing.assert_array_equal(made[present], ds.patterns.values[present])


def test_encoding_again_changes_nothing(trained_store: Path) -> None:
    before = tree(trained_store)
    vaearr("encode", trained_store)
    assert tree(trained_store) == before


def test_health(trained_store: Path, tmp_path: Path) -> None:
    """KL per dimension, active units and the aggregate posterior, by their formulae from what is
    stored.
    """
    ds = zarr(trained_store)
    mean, std = (
        ds[name].values[ds.roi.values].astype(float) for name in ("latents", "latents_std")
    )
    vaearr("look", "statistics", trained_store, "--out", tmp_path / "health.csv")
    found = {
        name: read_csv(tmp_path / "health.csv", name, exact=True)[:, 0]
        for name in ("kl", "is_active", "aggregate_mean", "aggregate_std", "aggregate_kl")
    }
    np.testing.assert_allclose(
        found["kl"], (0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std))).mean(0), rtol=1e-4
    )
    variance = mean.var(0) + (std**2).mean(0)
    np.testing.assert_allclose(found["aggregate_mean"], mean.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["aggregate_std"], np.sqrt(variance), rtol=1e-2)
    gaussian = 0.5 * (mean.mean(0) ** 2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(found["aggregate_kl"], gaussian, rtol=0.05, atol=1e-4)
    np.testing.assert_array_equal(found["is_active"] > 0, mean.var(0) > 0.01)
    stored = zarr(trained_store, "runs/vae/health")
    assert stored.kl.dims == ("latent",)


def test_description(trained_template: Path, tmp_path: Path) -> None:
    ds = zarr(trained_template)
    values = ds.latents.values[ds.roi.values].astype(float)
    vaearr("look", "describe", trained_template, "--out", tmp_path / "table.csv")
    wanted = {
        "count": np.full(3, len(values)),
        "mean": values.mean(0),
        "std": values.std(0, ddof=1),
        "min": values.min(0),
        "25%": np.quantile(values, 0.25, axis=0),
        "50%": np.median(values, 0),
        "75%": np.quantile(values, 0.75, axis=0),
        "max": values.max(0),
    }
    for name, column in wanted.items():
        found = read_csv(tmp_path / "table.csv", name, exact=True)[:, 0]
        np.testing.assert_allclose(found, column, rtol=1e-3, atol=1e-6, err_msg=name)


def test_table_of_latents(trained_store: Path, tmp_path: Path) -> None:
    """One row for each point of the region, with step numbers, classes (-1 kept) and maps."""
    ds = zarr(trained_store)
    further = [part for name in ("phase", "grains", "BC") for part in ("--variable", name)]
    vaearr("export", trained_store, tmp_path / "csv", "--format", "csv", *further)
    with (tmp_path / "csv" / "latents.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == int(ds.roi.sum())
    columns, lines = (
        np.array([int(row[name]) for row in rows]) for name in ("x", "y")
    )  # step numbers
    for latent in range(3):
        found = np.array([float(row[f"latent_{latent}"]) for row in rows])
        np.testing.assert_allclose(found, ds.latents.values[lines, columns, latent], rtol=1e-5)
    phases = {row["phase"] for row in rows}
    assert any(value.startswith("-1") or "not" in value for value in phases), phases
    np.testing.assert_allclose([float(row["BC"]) for row in rows], ds.BC.values[lines, columns])
    pytest.importorskip("pyarrow", reason="PYARROW IS MISSING: parquet not tested")
    import pandas as pd

    vaearr("export", trained_store, tmp_path / "parquet", "--format", "parquet", *further)
    frame = pd.read_parquet(tmp_path / "parquet" / "latents.parquet")
    assert len(frame) == len(rows)
    assert (
        vaearr("export", trained_store, tmp_path / "csv", "--format", "csv", code=None).code != 0
    )  # not replaced


def test_spatial_latents(volumes_template: Path) -> None:
    """`(sample, latent, lz, ly, lx)` with positions in mm, and what a diffusion stage needs."""
    ds = zarr(volumes_template)
    assert ds.latents.dims == ds.latents_std.dims == ("sample", "latent", "lz", "ly", "lx")
    for dim in ("z", "y", "x"):
        assert ds[f"l{dim}"].attrs["units"] == ds[dim].attrs["units"] == "mm"
        step = float(np.diff(ds[dim])[0])
        assert abs(float(np.diff(ds[f"l{dim}"])[0])) == pytest.approx(2 * abs(step))
        assert ds[f"l{dim}"].min() >= ds[dim].min() - abs(step)
        assert ds[f"l{dim}"].max() <= ds[dim].max() + abs(step)
    train = ds.latents.values[ds.split.values == 1].astype(float)
    attrs = ds.latents.attrs
    np.testing.assert_allclose(
        attrs["channel_mean"], train.mean((0, 2, 3, 4)), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(attrs["channel_std"], train.std((0, 2, 3, 4)), rtol=1e-2)
    assert attrs["diffusion_scale"] == pytest.approx(1 / train.std(), rel=0.02)


def test_batches_of_latents_for_a_second_stage(
    volumes_template: Path, images_template: Path
) -> None:
    ds = va.open_store(volumes_template)
    names = ds.label.attrs["flag_meanings"].split()
    small = ds.label.attrs["flag_values"][names.index("small")]
    chosen = ds.roi & (ds.label == small).variable
    batches = list(
        va.batches(ds, variable="latents", roi=chosen, labels=ds.label.load(), batch_size=3).epoch(
            0
        )
    )
    latents = np.concatenate([batch.patterns for batch in batches])
    index = np.concatenate([batch.index for batch in batches])[:, 0]
    assert set(np.concatenate([batch.labels for batch in batches])) == {small}
    np.testing.assert_array_equal(latents, ds.latents.values[index])
    assert sorted(index) == np.flatnonzero(chosen).tolist()
    training = torch.cat(list(va.batches(ds, variable="latents", split=ds.split.load())))
    assert float((training * ds.latents.attrs["diffusion_scale"]).std()) == pytest.approx(
        1, rel=0.03
    )
    images = va.open_store(images_template)
    vectors = torch.cat(list(va.batches(images, variable="latents", shuffle=False)))
    np.testing.assert_array_equal(vectors, images.latents)
    few = 10 * images.latents[0].nbytes / 2**30
    streamed = torch.cat(list(va.batches(images, variable="latents", memory=few)))
    np.testing.assert_array_equal(np.sort(streamed, 0), np.sort(vectors, 0))
    with pytest.raises(UsageError, match=r"there is no variable 'latent_'.*Did you mean 'latents'"):
        va.batches(images, variable="latent_")


def test_pictures_and_masks_are_not_needed(images_store: Path) -> None:
    """A run without latents says which command writes them."""
    done = vaearr("associate", images_store, "--run", "other", code=None)
    assert done.code != 0
    assert done.code != BAD_DATA
    assert done.error
