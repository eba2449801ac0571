"""What is read, from which files, and how it lands in a store (features 1 to 13)."""

from __future__ import annotations

import gzip
import json
import os
import struct
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import vaearr as va
from vaearr import errors as va_errors

from . import inputs
from .harness import BAD_DATA, NO_INPUT, USAGE, attributes, vaearr, zarr

SHARED = Path(
    os.environ.get("VAEARR_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


def small_scan(
    path: Path, *, dtype: str = "uint8", channel: bool = False, order: object = None
) -> np.ndarray:
    """An HDF5 file of 3 x 4 points of 8 x 9 pixels; returns the patterns, (3, 4, 8, 9)."""
    values = (np.arange(3 * 4 * 8 * 9).reshape(3, 4, 8, 9) * 7 % 251).astype(dtype)
    rows, columns = (axis.ravel() for axis in np.mgrid[:3, :4])
    chosen = np.arange(12) if order is None else np.asarray(order)
    with h5py.File(path, "w") as file:
        images = values.reshape(12, 8, 9)[chosen]
        file["images"] = images[:, None] if channel else images
        file["coords"] = np.stack([columns, rows], 1)[chosen]
    return values


@pytest.mark.parametrize("packed", [None, "gzip"])
def test_hdf5_of_rows_and_columns(packed: str | None, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (13, 41, 9, 8), dtype=np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "entry/frames", data=values, chunks=packed and (2, 7, 9, 8), compression=packed
        )
        file["xy"] = np.indices((41, 13)).reshape(2, -1, order="F").T
    for name in ("coords", "xy"):
        with va.open_source(tmp_path / "a.h5", images="entry/frames", coords=name) as lazy:
            assert lazy.patterns.dims == ("y", "x", "dy", "dx")
            np.testing.assert_array_equal(lazy.patterns.values, values)
            np.testing.assert_array_equal(lazy.patterns[3:12, 39:].values, values[3:12, 39:])


@pytest.mark.parametrize(
    ("dtype", "channel", "shuffled"), [("uint8", False, True), ("uint16", True, False)]
)
def test_hdf5(dtype: str, channel: bool, shuffled: bool, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(12) if shuffled else None
    values = small_scan(tmp_path / "a.h5", dtype=dtype, channel=channel, order=order)
    vaearr("ingest", tmp_path / "a.h5", tmp_path / "a.zarr", "--step", 0.5, "--units", "um")
    ds = zarr(tmp_path / "a.zarr")
    assert ds.patterns.dtype == dtype
    np.testing.assert_array_equal(ds.patterns, values)
    np.testing.assert_allclose(ds.x, [0, 0.5, 1, 1.5])
    assert ds.x.attrs["units"] == ds.y.attrs["units"] == "um"
    lazy = xr.open_dataset(tmp_path / "a.h5", engine="kikuchi-h5", chunks={})
    np.testing.assert_array_equal(lazy.patterns.transpose("y", "x", "dy", "dx"), values)
    assert lazy.patterns.chunks is not None


def test_one_ingest_opens_its_file_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_scan(tmp_path / "a.h5")
    opened = []
    really_open = h5py.File
    monkeypatch.setattr(
        h5py, "File", lambda *how, **more: opened.append(how) or really_open(*how, **more)
    )
    va.ingest(tmp_path / "a.h5", tmp_path / "a.zarr")
    assert 0 < len(opened) <= 3


NAMES = {
    "labelled": ("map_x{x:03d}_y{y:03d}", ()),
    "unlabelled": ("scan_{y}_{x}", ()),
    "template": ("{x}-{y}-end", ("--filenames", "{x}-{y}-end")),
    "expression": ("row{y}of9col{x}", ("--filenames", r"row(?P<y>\d+)of9col(?P<x>\d+)")),
}


@pytest.mark.parametrize("kind", NAMES)
def test_one_image_for_each_point(kind: str, tmp_path: Path) -> None:
    pattern, options = NAMES[kind]
    values = small_scan(tmp_path / "a.h5")
    (tmp_path / "points").mkdir()
    for y, x in np.ndindex(3, 4):
        if (y, x) != (1, 2):
            Image.fromarray(values[y, x]).save(
                tmp_path / "points" / (pattern.format(x=x, y=y) + ".png")
            )
    done = vaearr("ingest", tmp_path / "points", tmp_path / "a.zarr", *options)
    assert ("images are points of a scan, as their names hold" in done.err) == (not options)
    ds = zarr(tmp_path / "a.zarr")
    assert not bool(ds.present[1, 2])
    assert int(ds.present.sum()) == 11
    np.testing.assert_array_equal(ds.patterns.values[ds.present], values[ds.present])


def test_names_that_tell_no_point(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    for name in ("x0_y0", "x1_y0", "x01_y0", "readme"):
        Image.new("L", (8, 9)).save(tmp_path / "points" / f"{name}.png")
    options = (tmp_path / "a.zarr", "--filenames", "x{x}_y{y}")
    told = vaearr("ingest", tmp_path / "points", *options, code=BAD_DATA).error
    assert "readme" in told
    assert told.count("x{x}_y{y}") == 1  # the template that fails is not advised
    (tmp_path / "points" / "readme.png").unlink()
    told = vaearr("ingest", tmp_path / "points", *options, code=BAD_DATA).error
    assert "x01_y0" in told
    assert "x1_y0" in told
    assert not (tmp_path / "a.zarr").exists()


def test_image_folder(tmp_path: Path) -> None:
    """Any of five suffixes in any case, in order of names, masks left out."""
    folder = tmp_path / "set"
    folder.mkdir()
    images = [inputs.picture(0, i, (10, 14)) for i in range(5)]
    for image, name in zip(images, ("a.png", "b.BMP", "c.Tif", "d.tiff", "e.PNG"), strict=True):
        Image.fromarray(image).save(folder / name)
    Image.fromarray(images[1]).save(folder / "b_mask.png")
    ds = va.open_source(folder)
    np.testing.assert_array_equal(ds.patterns, images)
    assert [str(path) for path in ds.path.values] == ["a.png", "b.BMP", "c.Tif", "d.tiff", "e.PNG"]
    Image.fromarray(np.dstack([images[0]] * 3)).save(folder / "f.jpg")
    assert "--channels" in vaearr("ingest", folder, tmp_path / "a.zarr", code=None).error
    grey = va.open_source(folder, channels="grey")
    assert grey.patterns.shape == (6, 10, 14)
    assert abs(grey.patterns[5].astype(int) - images[0]).max() < 20  # JPEG loses a little
    assert va.open_source(folder, channels="colour").patterns.shape == (6, 3, 10, 14)


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_sizes(fit: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    image = np.full((10, 20), 200, "uint8")
    image[:, 10:] = 100
    Image.fromarray(image).save(tmp_path / "set" / "a.png")
    Image.fromarray(image[:, ::-1]).save(tmp_path / "set" / "b.png")
    vaearr("ingest", tmp_path / "set", tmp_path / "a.zarr", "--size", "12x12", "--fit", fit)
    first = zarr(tmp_path / "a.zarr").patterns.values[0]
    assert first.shape == (12, 12)
    rows = (first > 0).any(1).sum()
    assert rows == {"pad": 6, "crop": 12, "squash": 12}[fit]
    middle = first[6]
    assert abs(int(middle[:5].mean()) - 200) < 12
    assert abs(int(middle[-5:].mean()) - 100) < 12


def test_manifest(tmp_path: Path) -> None:
    folder = inputs.image_folder(tmp_path / "set", each=3)
    lines = [
        f"{path.relative_to(folder)},kind {i % 2},s{i // 2}"
        for i, path in enumerate(sorted(folder.rglob("*.png")))
    ]
    (folder / "list.csv").write_text("\n".join(["path,grade,subject", *lines]))
    options = ("--manifest", folder / "list.csv", "--set", "label_column=grade")
    vaearr(
        "ingest",
        folder,
        tmp_path / "a.zarr",
        *options,
        "--set",
        'classes=["kind 1"]',
        "--set",
        'exclude=["*disc*"]',
    )
    ds = zarr(tmp_path / "a.zarr")
    wanted = [line.split(",") for line in lines if "kind 1" in line and "disc" not in line]
    assert [str(path) for path in ds.path.values] == [path for path, _, _ in wanted]
    assert [str(subject) for subject in ds.subject.values] == [subject for _, _, subject in wanted]
    (folder / "list.csv").write_text("path,grade\nbar/00.png,1\nbar/77.png,2\n")
    assert "bar/77.png" in vaearr("ingest", folder, tmp_path / "b.zarr", *options, code=None).error


def test_labels_are_renamed(tmp_path: Path) -> None:
    """Feature 4: names of classes by `--label-map`, also two into one; classes are chosen by the
    new names.
    """
    folder = inputs.image_folder(tmp_path / "set", each=2)
    names = ("--label-map", "disc=round", "--label-map", "both=round")
    vaearr("ingest", folder, tmp_path / "a.zarr", *names)
    ds = zarr(tmp_path / "a.zarr")
    assert ds.label.attrs["flag_meanings"] == "unknown bar round"
    assert ds.label.values.tolist() == [0, 0, 1, 1, 1, 1]
    assert (
        va.open_source(folder, label_map={"disc": "round"}, classes=["round"]).sizes["sample"] == 2
    )
    assert va.open_source(folder, label_map={"disc": ""}).label.values.tolist() == [
        0,
        0,
        1,
        1,
        -1,
        -1,
    ]
    told = vaearr(
        "ingest", folder, tmp_path / "b.zarr", "--label-map", "dics=round", code=USAGE
    ).error
    assert "Did you mean 'disc'" in told


def test_a_named_set_and_random_subsets(tmp_path: Path) -> None:
    """Feature 6: the digits of scikit-learn by name, a seeded subset, and never another set in its
    place.
    """
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    vaearr("ingest", "sklearn:digits", tmp_path / "a.zarr", "--n-samples", 50, "--subset-seed", 3)
    ds, whole = zarr(tmp_path / "a.zarr"), va.open_source("sklearn:digits")
    np.testing.assert_array_equal(whole.patterns, sklearn.images)
    np.testing.assert_array_equal(whole.label, sklearn.target)
    chosen = [int(path) for path in ds.path.values]
    assert len(set(chosen)) == 50
    assert chosen == sorted(chosen)
    np.testing.assert_array_equal(ds.patterns, sklearn.images[chosen])
    again, other = (
        va.open_source("sklearn:digits", n_samples=50, subset_seed=seed) for seed in (3, 4)
    )
    assert again.path.values.tolist() == ds.path.values.tolist() != other.path.values.tolist()
    nines = va.open_source("sklearn:digits", classes=["9"], n_samples=7)
    assert nines.sizes["sample"] == 7
    assert nines.label.attrs["flag_meanings"] == "unknown 9"
    assert (
        "ask for fewer"
        in vaearr(
            "ingest", "sklearn:digits", tmp_path / "b.zarr", "--n-samples", 9999, code=USAGE
        ).error
    )
    for name in ("sklearn:faces", "mnist"):
        assert vaearr("ingest", name, tmp_path / "b.zarr", code=None).code == NO_INPUT
    small_scan(tmp_path / "a.h5")
    assert (
        "for collections"
        in vaearr(
            "ingest", tmp_path / "a.h5", tmp_path / "b.zarr", "--n-samples", 5, code=USAGE
        ).error
    )
    assert not (tmp_path / "b.zarr").exists()


def test_nifti(tmp_path: Path) -> None:
    folder = inputs.volume_folder(tmp_path / "set", count=2)
    ds = va.open_source(folder)
    assert ds.patterns.dims == ("sample", "z", "y", "x")
    assert ds.patterns.dtype == "float32"
    source = nibabel.as_closest_canonical(nibabel.load(folder / "v00.nii.gz"))
    np.testing.assert_allclose(ds.patterns[0], source.get_fdata().T, rtol=1e-6)
    np.testing.assert_allclose(ds.affine[0], source.affine)
    cut = va.open_source(folder, size=(12, 20, 8), fit="crop")
    assert cut.patterns.shape[1:] == (12, 20, 8)
    fine = va.open_source(folder, spacing=(2.0, 2.0, 2.0))
    assert fine.patterns.shape[1:] == tuple(2 * side for side in ds.patterns.shape[1:])
    for other in (cut, fine):  # the ball stays where it is, in mm
        assert np.linalg.norm(centre(other) - centre(ds)) < 1.0
    small = inputs.volume_folder(tmp_path / "one", count=2)
    nibabel.Nifti1Image(np.zeros((5, 5, 5, 2), "float32"), np.eye(4)).to_filename(
        small / "v01.nii.gz"
    )
    assert "v01.nii.gz" in vaearr("ingest", small, tmp_path / "a.zarr", code=BAD_DATA).error


def centre(ds: xr.Dataset) -> np.ndarray:
    """Centre of what is above half of the largest value, in mm by the affine."""
    z, y, x = np.nonzero(ds.patterns[0].values > 50)
    return np.asarray(ds.affine[0].values @ [x.mean(), y.mean(), z.mean(), 1])[:3]


def test_real_volumes(tmp_path: Path) -> None:
    files = sorted((SHARED / "mri_t1").rglob("*.nii.gz"))
    if not files:
        pytest.skip(f"NO REAL VOLUMES: {SHARED / 'mri_t1'} holds none")
    ds = va.open_source(files[0])
    source = nibabel.as_closest_canonical(nibabel.load(files[0]))
    np.testing.assert_allclose(ds.patterns[0].values, np.asarray(source.dataobj).T, rtol=1e-6)


def test_digits(tmp_path: Path) -> None:
    """IDX, plain or gzipped, with its labels beside it, and NPZ: the same data set, asked for by
    its file alone.
    """
    digits = np.random.default_rng(0).integers(0, 255, (9, 7, 6)).astype("uint8")
    labels = np.arange(9, dtype="uint8") % 4
    images = struct.pack(">4B3I", 0, 0, 8, 3, *digits.shape) + digits.tobytes()
    classes = struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + labels.tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(classes))
    np.savez(tmp_path / "digits.npz", x=digits, y=labels)
    vaearr("ingest", tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "idx.zarr")
    vaearr("ingest", tmp_path / "digits.npz", tmp_path / "npz.zarr")
    for name in ("idx", "npz"):
        ds = zarr(tmp_path / f"{name}.zarr")
        np.testing.assert_array_equal(ds.patterns, digits)
        np.testing.assert_array_equal(ds.label, labels)


HEADERS = (
    "X,Y,BC",
    " x_position ; y_position ; Band Contrast",
    "x_indice\ty_indice\tband_contrast",
    "\ufeffx,y,bc [1]",
)


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_maps(header: str, tmp_path: Path) -> None:
    small_scan(tmp_path / "a.h5")
    mark = next(mark for mark in ";\t," if mark in header)
    lines = [
        mark.join(map(str, (x, y, 10 * y + x))) for y, x in np.ndindex(3, 4) if (y, x) != (2, 1)
    ]
    (tmp_path / "bc.csv").write_text("\n".join([header, *reversed(lines)]), encoding="utf-8")
    vaearr("ingest", tmp_path / "a.h5", tmp_path / "a.zarr", "--bc", tmp_path / "bc.csv")
    bc = zarr(tmp_path / "a.zarr").BC.values
    assert np.isnan(bc[2, 1])
    np.testing.assert_array_equal(
        np.delete(bc.ravel(), 9), np.delete([10 * y + x for y, x in np.ndindex(3, 4)], 9)
    )


def test_maps_by_position_and_with_decimal_commas(tmp_path: Path) -> None:
    """Positions in the unit of the scan are read as step numbers are, and commas where columns have
    another mark.
    """
    small_scan(tmp_path / "a.h5")
    lines = [f"{x * 0.5};{y * 0.5};{10 * y + x}.25".replace(".", ",") for y, x in np.ndindex(3, 4)]
    (tmp_path / "bc.csv").write_text("\n".join(["X [um];Y [um];BC", *reversed(lines)]))
    vaearr(
        "ingest", tmp_path / "a.h5", tmp_path / "a.zarr", "--bc", tmp_path / "bc.csv", "--step", 0.5
    )
    wanted = np.array([[10 * y + x + 0.25 for x in range(4)] for y in range(3)])
    np.testing.assert_array_equal(zarr(tmp_path / "a.zarr").BC, wanted)
    for text in (
        "x,y,BC\n0,0,1\n0,0,1\n",
        "x,y,BC\n-5,-5,1\n",
        "x,y,BC\n0,0,a\n",
        "x,BC\n0,1\n",
        "x,y\n0,1\n",
    ):
        (tmp_path / "bc.csv").write_text(text)
        told = vaearr(
            "ingest",
            tmp_path / "a.h5",
            tmp_path / "b.zarr",
            "--bc",
            tmp_path / "bc.csv",
            code=BAD_DATA,
        )
        assert "bc.csv" in told.error
        assert not (tmp_path / "b.zarr").exists()


def test_an_array_of_another_shape_is_told_the_grid(scan_store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones((inputs.NY - 1, inputs.NX)))
    told = vaearr(
        "attach", scan_store, tmp_path / "m.npy", "--kind", "map", "--name", "m", code=BAD_DATA
    ).error
    assert f"({inputs.NY - 1}, {inputs.NX})" in told
    assert f"({inputs.NY}, {inputs.NX})" in told


def test_tables_beside_a_scan(scan_template: Path) -> None:
    ds = zarr(scan_template)
    assert [str(name) for name in ds.element.values] == ["Fe", "Ni"]
    grains = inputs.grains()
    assert (
        float(ds.elements.sel(element="Fe").where(xr.DataArray(grains > 1, dims=("y", "x"))).mean())
        > 85
    )
    assert ds.phase.attrs["flag_meanings"].split()[-2:] == ["ferrite", "austenite"]
    rows, columns = np.mgrid[: inputs.NY, : inputs.NX]
    indexed = ((rows + columns) % 29 != 0) & ds.present.values
    np.testing.assert_array_equal(ds.phase.values[indexed], (grains > 1)[indexed])
    assert (ds.phase.values[ds.present.values & ~indexed] == -1).all()


def test_feature_tables_by_prefix(scan_store: Path, tmp_path: Path) -> None:
    ds = zarr(scan_store)
    values = np.random.default_rng(0).normal(size=(inputs.NY, inputs.NX, 2))
    lines = [
        f"{x},{y},{values[y, x, 0]},{values[y, x, 1]},7"
        for y, x in np.ndindex(inputs.NY, inputs.NX)
        if ds.present[y, x]
    ]
    (tmp_path / "scores.csv").write_text("\n".join(["x_index,y_index,PCA_1,PCA_2,other", *lines]))
    vaearr(
        "attach",
        scan_store,
        tmp_path / "scores.csv",
        "--kind",
        "scores",
        "--name",
        "theirs",
        "--prefix",
        "PCA_",
    )
    theirs = zarr(scan_store).theirs
    np.testing.assert_allclose(theirs.values[ds.present], values[ds.present], rtol=1e-6)
    assert np.isnan(theirs.values[~ds.present.values]).all()


def test_element_maps_of_an_instrument(
    scan_store: Path, scan_files: dict[str, Path], tmp_path: Path
) -> None:
    """Feature 8: .tsv maps with ragged rows and decimal commas, the element in the file name, on
    the scan's grid.
    """
    coarse = np.add.outer(np.arange(2 * inputs.NY), 100.5 * np.arange(3 * inputs.NX))
    lines = ["\t".join(f"{value:.2f}".replace(".", ",") for value in row) for row in coarse]
    lines[0] = lines[0].rpartition("\t")[0]  # a shorter line
    lines[1] += "\t"
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "Map 3_Fe K series.tsv").write_text("\n".join(lines) + "\n")
    vaearr(
        "attach",
        scan_store,
        folder / "Map 3_Fe K series.tsv",
        "--kind",
        "elements",
        "--name",
        "eds",
    )
    found = zarr(scan_store).eds
    assert found.eds_element.values.tolist() == ["Fe"]
    wanted = coarse.reshape(inputs.NY, 2, inputs.NX, 3)
    wanted[0, 0, -1, -1] = np.nan
    is_measured = zarr(scan_store).present.values
    np.testing.assert_allclose(
        found.values[0][is_measured], np.nanmean(wanted, axis=(1, 3))[is_measured], atol=1e-2
    )
    (folder / "Ni.tsv").write_text("1\t2\n3\t4\n")
    ds = va.ingest(scan_files["patterns"], tmp_path / "b.zarr", elements=folder)
    assert ds.element.values.tolist() == ["Fe", "Ni"]
    assert ds.elements.attrs["units"] == "wt%"
    assert ds.elements.sel(element="Ni").values[[0, 0, -2, -1], [0, -1, 0, -1]].tolist() == [
        1,
        2,
        3,
        4,
    ]
    for name, text, words in (
        ("map.tsv", "1\t2\n", "expected one symbol"),
        ("FeNi_Fe_Ni.tsv", "1\t2\n", "holds Fe, Ni, expected one"),
        ("Cr.tsv", "1\t2\n3\tx\n", "line 2, value 2: 'x' is no finite number"),
    ):
        (tmp_path / name).write_text(text)
        options = ("attach", scan_store, tmp_path / name, "--kind", "elements", "--name", "bad")
        assert words in vaearr(*options, code=BAD_DATA).error


def test_a_run_and_a_dataset_stand_for_their_store(trained_store: Path) -> None:
    values = np.arange(inputs.NY * inputs.NX, dtype="f4")
    va.attach(va.load_run(trained_store), values, kind="map", name="by_run")
    va.attach(va.open_store(trained_store), values, kind="map", name="by_dataset")
    va.attach(xr.open_zarr(trained_store), values, kind="map", name="by_xarray")
    ds = zarr(trained_store)
    for name in ("by_dataset", "by_xarray"):
        np.testing.assert_array_equal(ds[name], ds.by_run)
    with pytest.raises(va_errors.UsageError, match="does not say which store"):
        va.attach(xr.Dataset(), values, kind="map", name="other")


def test_coordinates_are_finite_numbers(tmp_path: Path) -> None:
    values = small_scan(tmp_path / "a.h5")
    for x, words in (
        (np.array([0, 1, np.nan, 3]), "holds nan, expected finite numbers"),
        (np.arange(4).astype("M8[ns]"), "has dtype datetime64.ns., expected numbers"),
    ):
        array = xr.DataArray(values, dims=("y", "x", "dy", "dx"), coords={"x": x})
        with pytest.raises(va_errors.SchemaError, match=words):
            va.ingest(array, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_names_of_phases_are_metadata(scan_store: Path, tmp_path: Path) -> None:
    """Feature 9: plain xarray reads the names of phases and classes, however they came in."""
    assert zarr(scan_store).phase.attrs["flag_meanings"].split()[-2:] == ["ferrite", "austenite"]
    codes = np.zeros((inputs.NY, inputs.NX), int)
    codes[1:] = 3
    va.attach(
        scan_store, codes, kind="classes", name="other", classes={0: "gamma prime", 3: "sigma"}
    )
    attrs = zarr(scan_store).other.attrs
    assert (
        dict(zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True))[3] == "sigma"
    )
    assert "gamma_prime" in attrs["flag_meanings"]


def test_crop_and_bin_on_the_way(tmp_path: Path) -> None:
    values = small_scan(tmp_path / "a.h5", order=np.arange(11))  # one point is missing
    small = va.bin_patterns(va.crop(va.open_source(tmp_path / "a.h5"), dy=(2, 8), dx=(1, 9)), 2)
    va.ingest(small, tmp_path / "a.zarr")
    ds = zarr(tmp_path / "a.zarr")
    wanted = values[:, :, 2:8, 1:9].reshape(3, 4, 3, 2, 4, 2).mean((3, 5))
    np.testing.assert_allclose(
        ds.patterns.values.reshape(12, 3, 4)[:11], wanted.reshape(12, 3, 4)[:11], rtol=1e-6
    )
    assert np.isnan(ds.patterns[2, 3]).all()
    assert ds.dy.values.tolist() == [2.5, 4.5, 6.5]
    assert [step["step"] for step in json.loads(ds.patterns.attrs["steps"])] == ["crop", "bin"]


def test_data_report(images_template: Path) -> None:
    told = vaearr("info", images_template).out
    assert "36" in told
    for label in ("disc", "bar", "both"):
        assert label in told
    facts = json.loads(vaearr("info", images_template, "--json").out)
    assert facts["variables"]["patterns"]["dtype"] == "uint8"


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    """Promise P13: refused by default, left out where that is asked for; never learned from."""
    values = small_scan(tmp_path / "a.h5", dtype="float32")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["images"][5, 3, 3] = np.nan
    told = vaearr("ingest", tmp_path / "a.h5", tmp_path / "a.zarr", code=BAD_DATA).error
    assert "nonfinite" in told
    assert not (tmp_path / "a.zarr").exists()
    vaearr("ingest", tmp_path / "a.h5", tmp_path / "a.zarr", "--set", "nonfinite=mask")
    ds = zarr(tmp_path / "a.zarr")
    assert int((~ds.present).sum()) == 1
    np.testing.assert_array_equal(ds.patterns.values[ds.present], values[ds.present])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--bc", "none.csv"), None),
        (("--step", "-1"), USAGE),
        (("--set", "stride=2"), USAGE),
    ],
)
def test_refused_before_anything_is_written(
    options: tuple[str, ...], code: int | None, tmp_path: Path
) -> None:
    small_scan(tmp_path / "a.h5")
    done = vaearr("ingest", tmp_path / "a.h5", tmp_path / "a.zarr", *options, code=code)
    assert done.code != 0
    assert done.error
    assert not (tmp_path / "a.zarr").exists()


def test_an_existing_store_is_not_replaced(scan_store: Path, scan_files: dict[str, Path]) -> None:
    before = attributes(scan_store)
    assert vaearr("ingest", scan_files["patterns"], scan_store, code=None).code != 0
    assert attributes(scan_store) == before


def test_python_and_command_line_make_the_same(tmp_path: Path) -> None:
    small_scan(tmp_path / "a.h5")
    vaearr("ingest", tmp_path / "a.h5", tmp_path / "a.zarr", "--step", 0.5)
    va.ingest(tmp_path / "a.h5", tmp_path / "b.zarr", step=0.5)
    xr.testing.assert_equal(zarr(tmp_path / "a.zarr"), zarr(tmp_path / "b.zarr"))
