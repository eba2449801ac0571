"""Regions, masks, splits, and the way from rows to maps and back (features 13 and 15 to 18)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va

from . import inputs
from .harness import TINY, vaearr, zarr

ONE_EPOCH = ("--epochs", 1, "--set", "batch_size=64", *TINY)


def columns(ds: xr.Dataset) -> xr.DataArray:
    return ds.x.broadcast_like(ds.present) / inputs.STEP


def test_boxes_are_half_open_in_coordinate_units(scan_template: Path) -> None:
    ds = va.open_store(scan_template)
    x, y = ds.x.broadcast_like(ds.present), ds.y.broadcast_like(ds.present)
    cases = {
        "both": (
            {"x": (0.5, 2.0), "y": (1.0, 3.0)},
            (x >= 0.5) & (x < 2.0) & (y >= 1.0) & (y < 3.0),
        ),
        "x": ({"x": (0.5, 2.01)}, (x >= 0.5) & (x <= 2.0)),
        "y": ({"y": (-9, 0.5)}, y < 0.5),
        "condition": ({"where": "BC > 130"}, ds.BC > 130),
        "both kinds": (
            {"where": "BC >= 130 and elements['Fe'] < 80", "x": (0, 3)},
            (ds.BC >= 130) & (x < 3),
        ),
    }
    for name, (given, wanted) in cases.items():
        if name == "both kinds":
            wanted = wanted & (ds.elements.sel(element="Fe") < 80)
        np.testing.assert_array_equal(
            va.roi(ds, **given), (wanted & ds.present).values, err_msg=name
        )


def test_nan_fulfils_no_condition(scan_store: Path, tmp_path: Path) -> None:
    ds = zarr(scan_store)
    holes = np.where(columns(ds) > 10, np.nan, 1.0)
    np.save(tmp_path / "holes.npy", holes)
    vaearr("attach", scan_store, tmp_path / "holes.npy", "--kind", "map", "--name", "holes")
    opened = va.open_store(scan_store)
    for text in ("holes > 0", "holes < 2", "not holes > 5", "holes != 3"):
        np.testing.assert_array_equal(
            va.roi(opened, where=text), np.isfinite(holes) & ds.present.values, err_msg=text
        )


@pytest.mark.parametrize(
    "options",
    [("--x", "90:99"), ("--where", "BC > 9999"), ("--x", "2:1"), ("--where", "nosuch > 1")],
)
def test_regions_that_cannot_be_meant(options: tuple[str, str], scan_template: Path) -> None:
    done = vaearr("train", scan_template, *options, *ONE_EPOCH, code=None)
    assert done.code != 0
    assert done.error


def test_one_region_in_every_module(trained_store: Path, tmp_path: Path) -> None:
    """Latents, components, clusters, reconstructions, tables: all over the same points."""
    ds = zarr(trained_store)
    inside = ds.roi.values
    assert (
        inside.sum()
        == np.isfinite(ds.reconstruction_error).sum()
        == (ds.grains > -2).sum()
        == (ds.split > 0).sum()
    )
    np.testing.assert_array_equal(np.isfinite(ds.latents_std).all("latent"), inside)
    np.testing.assert_array_equal(np.isfinite(ds.latents_pca).all("latent_pca"), inside)
    np.testing.assert_array_equal(ds.grains > -2, inside)
    np.testing.assert_array_equal(ds.split > 0, inside)
    vaearr("export", trained_store, tmp_path / "out", "--format", "npy")
    rows, full = (
        np.load(tmp_path / "out" / "latents_roi.npy"),
        np.load(tmp_path / "out" / "latents_full.npy"),
    )
    np.testing.assert_array_equal(rows, ds.latents.values[inside])
    np.testing.assert_array_equal(full, ds.latents.values.reshape(-1, 3))
    points = np.loadtxt(tmp_path / "out" / "coords_roi.csv", delimiter=",", skiprows=1)[:, :2]
    y, x = np.nonzero(inside)
    np.testing.assert_array_equal(
        points, np.stack([x, y], 1)
    )  # step numbers, in the order of the rows
    told = vaearr("reconstruct", trained_store, "--x", "1:2", "--y", "0:1", "--name", "part").out
    assert "n = 16 samples" in told


def test_kept_points_out_and_in(scan_store: Path, tmp_path: Path) -> None:
    vaearr("look", "contrast", scan_store, "--where", "BC >= 150", "--keep", tmp_path / "kept.csv")
    vaearr("train", scan_store, "--points", tmp_path / "kept.csv", *ONE_EPOCH)
    ds = zarr(scan_store)
    np.testing.assert_array_equal(ds.roi, (ds.BC >= 150) & ds.present)


def test_rows_and_grid_are_inverse(trained_template: Path) -> None:
    ds = va.open_store(trained_template)
    rows = va.to_samples(ds.latents, ds.roi)
    np.testing.assert_array_equal(rows, ds.latents.values[ds.roi.values])
    back = va.to_grid(rows.load(), ds.roi)
    np.testing.assert_array_equal(back, ds.latents)
    turned = va.to_grid(rows.load(), ds.roi, fill=-9)
    assert (turned.values[~ds.roi.values] == -9).all()


def test_tables_are_placed_not_counted(trained_store: Path, tmp_path: Path) -> None:
    """A column for the whole grid, for the region, or with coordinates in any order; another length
    is an error.
    """
    ds = zarr(trained_store)
    inside = ds.roi.values
    full = np.where(inside, np.arange(inside.size).reshape(inside.shape), np.nan)
    np.save(tmp_path / "roi.npy", full[inside])
    vaearr(
        "attach",
        trained_store,
        tmp_path / "roi.npy",
        "--kind",
        "map",
        "--name",
        "of_roi",
        "--roi",
        "vae",
    )
    y, x = np.nonzero(inside)
    order = np.random.default_rng(0).permutation(len(x))
    table = np.stack([x * inputs.STEP, y * inputs.STEP, full[inside]], 1)[order]
    np.savetxt(tmp_path / "points.csv", table, delimiter=",", header="x,y,value", comments="")
    vaearr("attach", trained_store, tmp_path / "points.csv", "--kind", "map", "--name", "of_points")
    np.save(tmp_path / "grid.npy", full)
    vaearr("attach", trained_store, tmp_path / "grid.npy", "--kind", "map", "--name", "of_grid")
    after = zarr(trained_store)
    for name in ("of_roi", "of_points", "of_grid"):
        np.testing.assert_allclose(after[name], full, err_msg=name)
    np.save(tmp_path / "short.npy", full[inside][:-1])
    told = vaearr(
        "attach",
        trained_store,
        tmp_path / "short.npy",
        "--kind",
        "map",
        "--name",
        "short",
        "--roi",
        "vae",
        code=None,
    ).error
    assert str(inside.sum() - 1) in told
    assert str(inside.sum()) in told
    twice = np.concatenate([table, table[:1]])
    np.savetxt(tmp_path / "twice.csv", twice, delimiter=",", header="x,y,value", comments="")
    assert vaearr(
        "attach",
        trained_store,
        tmp_path / "twice.csv",
        "--kind",
        "map",
        "--name",
        "twice",
        code=None,
    ).error
    assert "twice" not in zarr(trained_store)


@pytest.mark.parametrize("method", ["random", "stratified", "groups", "blocks"])
def test_splits_are_stored(method: str, template: object, tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        source = inputs.image_folder(folder / "set", each=12)
        paths = [str(path.relative_to(source)) for path in sorted(source.rglob("*.png"))]
        lines = [f"{path},{path.split('/')[0]},s{i % 9}" for i, path in enumerate(paths)]
        (source / "list.csv").write_text("\n".join(["path,label,subject", *lines]))
        vaearr("ingest", source / "list.csv", folder / "a.zarr", "--size", "12x16")

    def train(store: Path, run: str) -> np.ndarray:
        share = ("--set", f"split.method={method}", "--set", "split.fraction=0.25")
        vaearr("train", store, "--run", run, *share, *ONE_EPOCH)
        return np.asarray(zarr(store)[f"split_{run}"].values)

    import shutil

    store = Path(shutil.copytree(template("subjects", make) / "a.zarr", tmp_path / "a.zarr"))  # type: ignore[operator]
    first, again = train(store, "a"), train(store, "b")
    np.testing.assert_array_equal(first, again)  # the same seed
    assert set(first.tolist()) == {1, 2}
    ds = zarr(store)
    if method == "groups":
        assert not set(ds.subject.values[first == 1]) & set(ds.subject.values[first == 2])
    if method == "stratified":
        assert [int((first[ds.label.values == code] == 2).sum()) for code in (0, 1, 2)] == [3, 3, 3]


def test_blocks_of_a_scan_stay_together(trained_template: Path) -> None:
    split = zarr(trained_template).split.values
    kept = split == 2
    assert 0 < kept.sum() < 0.2 * (split > 0).sum()
    pairs = (kept[1:] & (split[:-1] > 0), kept[:-1] & (split[1:] > 0))
    alike = (kept[1:] & kept[:-1]).sum() * 2 / sum(pair.sum() for pair in pairs)
    assert alike > 0.3  # of points one by one it would be their share
