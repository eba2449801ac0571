"""Encoding: exact NaN outside the ROI, resumable, repeatable; models that load cold and refuse what does not fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr.config import EncodeConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.provenance import nested
from vaearr.store import create_store, run_folder
from vaearr.testing import assert_valid
from vaearr.verifying import relist

from .conftest import TINY_TRAINING
from .data import random_patterns_dataset


def test_latents_are_the_models_and_nan_outside_exactly(trained_store: Path) -> None:
    ds = xr.open_zarr(trained_store).load()
    assert_valid(ds)
    for name in ("latents", "latents_std", "reconstruction_error"):
        finite = np.isfinite(ds[name].values)
        inside = ds.roi.values if finite.ndim == 2 else ds.roi.values[..., None]
        np.testing.assert_array_equal(finite, np.broadcast_to(inside, finite.shape))
        assert nested(ds[name].attrs, "provenance")["run"] == "vae"
    model = va.load_model(trained_store)
    again = model.encode(ds.patterns)
    assert again.dims == ("y", "x", "latent")
    np.testing.assert_allclose(again.where(ds.roi).values, ds.latents.values, atol=1e-4)
    assert (ds.latents_std.where(ds.roi, 1) > 0).all()


def test_encoding_again_is_a_no_op(trained_store: Path) -> None:
    said: list[str] = []
    stamp = (trained_store / "latents" / "zarr.json").stat().st_mtime_ns
    va.encode(trained_store, say=said.append)
    assert "already holds latents" in said[0]
    assert (trained_store / "latents" / "zarr.json").stat().st_mtime_ns == stamp


KILLED = """
import os, sys
import vaearr as va
def stop(done, total):
    if done == 2:
        os._exit(9)
va.encode(sys.argv[1], on_block=stop)
"""


def test_killed_encode_is_not_a_result_and_resumes_bit_for_bit(trained_store: Path) -> None:
    want = xr.open_zarr(trained_store)[["latents", "latents_std", "reconstruction_error"]].load()
    for name in (*want.data_vars, "latent"):
        shutil.rmtree(trained_store / name)
    from vaearr.store.listing import refresh_listing

    refresh_listing(trained_store)
    code = subprocess.run([sys.executable, "-c", KILLED, str(trained_store)], check=False).returncode
    assert code == 9
    assert "latents" not in xr.open_zarr(trained_store)
    said: list[str] = []
    got = va.encode(trained_store, say=said.append)
    assert said[0] == "going on with an interrupted encode: 2 blocks are done"
    assert said[1].startswith("encoding ")
    for name in want.data_vars:
        np.testing.assert_array_equal(got[name].values, want[name].values)


def test_decode_needs_no_encode_and_takes_what_encode_gives(trained_store: Path) -> None:
    model = va.load_model(trained_store)
    decoded = model.decode(np.zeros((4, 5, 3), np.float32))
    assert decoded.shape == (4, 5, 9, 11)
    np.testing.assert_array_equal(decoded, va.load_model(trained_store).decode(np.zeros((4, 5, 3), np.float32)))
    ds = xr.open_zarr(trained_store)
    labelled = model.decode(ds.latents.isel(y=slice(3)).fillna(0))
    assert labelled.dims == ("y", "x", "dy", "dx")
    with pytest.raises(DataError, match=r"latents have shape \(2, 7\); the model.s have \(3,\) last"):
        model.decode(np.zeros((2, 7)))


def test_encode_array_shapes(trained_store: Path) -> None:
    model = va.load_model(trained_store)
    patterns = xr.open_zarr(trained_store).patterns.values
    one = model.encode(patterns[3, 4])
    assert one.shape == (3,)
    np.testing.assert_allclose(model.encode(patterns[3:5])[0, 4], one, atol=1e-5)
    with pytest.raises(DataError, match=r"shape \(5, 9, 12\); the model was trained on samples of shape \(1, 9, 11\)"):
        model.encode(np.zeros((5, 9, 12)))


def test_encoding_does_not_learn(trained_store: Path) -> None:
    model = va.load_model(trained_store)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.encode(xr.open_zarr(trained_store).patterns.values)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_reconstruct(trained_store: Path) -> None:
    ds = va.reconstruct(trained_store, n_samples=5)
    assert ds.input.sizes == {"sample": 5, "dy": 9, "dx": 11}
    assert ds.reconstruction.shape == ds.input.shape
    store = xr.open_zarr(trained_store)
    for y, x in zip(ds.y.values, ds.x.values, strict=True):
        assert int(store.split.sel(y=y, x=x)) == n.VALIDATION
    xr.testing.assert_identical(ds, va.reconstruct(trained_store, n_samples=5))


def test_reconstruction_error_is_the_mean_square(trained_store: Path) -> None:
    shown = va.reconstruct(trained_store, n_samples=3)
    error = ((shown.input - shown.reconstruction) ** 2).mean(("dy", "dx"))
    stored = xr.open_zarr(trained_store).reconstruction_error.sel(y=shown.y, x=shown.x)
    np.testing.assert_allclose(stored.values, error.values, rtol=1e-3)


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), NoInputError, r"holds no config.json"),
        (
            lambda f: (f / "config.json").write_text("{"),
            DataError,
            "or its checksums.sha256 cannot be read",
        ),
        (
            lambda f: (f / "config.json").write_text('{"format": 99}'),
            DataError,
            "is not as it was published",
        ),
        (lambda f: _flip(f / "weights.safetensors"), DataError, "is damaged"),
    ],
    ids=["missing", "not json", "future", "flipped"],
)
def test_broken_artefacts_are_refused(trained_store: Path, break_it: object, error: type, message: str) -> None:
    break_it(run_folder(trained_store, "vae") / n.MODEL)  # type: ignore[operator]
    with pytest.raises(error, match=message):
        va.load_model(trained_store)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(bytes(data))


def test_a_run_of_other_data_is_refused(trained_store: Path, tmp_path: Path) -> None:
    other = create_store(random_patterns_dataset({"y": 5, "x": 6}), tmp_path / "other.zarr")
    shutil.copytree(trained_store / "runs" / "vae", other / "runs" / "vae")
    relist(other)
    with pytest.raises(UsageError, match=r"trained on samples of shape \(1, 9, 11\), the store has \(1, 8, 9\)"):
        va.encode(other)


def test_unknown_run(trained_store: Path) -> None:
    with pytest.raises(NoInputError, match="has no run 'nope'"):
        va.encode(trained_store, config=EncodeConfig(run="nope"))


def test_run_of_the_settings_and_of_the_call(trained_store: Path) -> None:
    va.train(trained_store, run="b", config=TINY_TRAINING)
    va.encode(trained_store, run="b", config=EncodeConfig(batch_size=8))
    assert "latents_b" in xr.open_zarr(trained_store)


def test_patterns_without_values_have_no_latents(trained_store: Path) -> None:
    model = va.load_model(trained_store)
    patterns = xr.open_zarr(trained_store).patterns.values[:2, :2].astype("f4")
    patterns[0, 1, 3, 3] = np.nan
    patterns[1, 1] = np.inf
    latents = model.encode(patterns)
    np.testing.assert_array_equal(np.isnan(latents).all(-1), [[False, True], [False, True]])
    assert model.encode(patterns[:0]).shape == (0, 2, 3)
    swapped = patterns[0, 0].astype(">f4")
    np.testing.assert_allclose(model.encode(swapped), latents[0, 0], atol=1e-5)


def test_names_decide_not_positions(trained_store: Path) -> None:
    ds, model = xr.open_zarr(trained_store), va.load_model(trained_store)
    block = ds.patterns.isel(y=slice(0, 9), x=slice(0, 11))
    straight, turned = model.encode(block), model.encode(block.transpose("dx", "x", "dy", "y"))
    np.testing.assert_allclose(turned.transpose(*straight.dims).values, straight.values, atol=1e-6)
    np.testing.assert_array_equal(model.decode(straight.transpose("latent", ...)).values, model.decode(straight).values)
    with pytest.raises(DataError, match="lacks dy"):
        model.encode(block.rename(dy="row"))
    with pytest.raises(DataError, match="exactly one latent dim"):
        model.decode(straight.rename(latent="feature"))


def test_channels_keep_their_names(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 5, "x": 6}, {"channel": 2, "dy": 8, "dx": 9})
    path = create_store(ds, tmp_path / "c.zarr")
    va.train(path, config=TINY_TRAINING)
    model = va.load_model(path)
    latents = model.encode(ds.patterns)
    assert latents.dims == ("y", "x", "latent")
    assert model.decode(latents).dims == ("y", "x", "channel", "dy", "dx")


def test_a_lost_shard_is_not_encoded_as_zeros(trained_store: Path) -> None:
    va.train(trained_store, run="b", config=TINY_TRAINING)
    next(f for f in (trained_store / "patterns" / "c").rglob("*") if f.is_file()).unlink()
    for work in (lambda: va.encode(trained_store, run="b"), lambda: va.train(trained_store, run="c")):
        with pytest.raises(DataError, match="is missing; restore it"):
            work()


def test_reconstruct_names_a_damaged_shard(trained_store: Path) -> None:
    for shard in [f for f in (trained_store / "patterns" / "c").rglob("*") if f.is_file()]:
        shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"is damaged: patterns/c/\d+/\d+/0/0 .*'vaearr verify \S+' says what to do"):
        va.reconstruct(trained_store)


def test_missing_weights(trained_store: Path) -> None:
    (run_folder(trained_store, "vae") / n.MODEL / "weights.safetensors").unlink()
    with pytest.raises(NoInputError, match=r"weights\.safetensors is missing"):
        va.load_model(trained_store)
