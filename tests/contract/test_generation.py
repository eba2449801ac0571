"""Draws, ways, prototypes, traversals, planes: what they decode and what stays fixed (features 52
to 58).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

import vaearr as va
from vaearr.views import on_paper

from .harness import EXISTS, USAGE, vaearr, zarr
from .record import read_csv

Arrays = dict[str, NDArray[np.generic]]


def explored(command: str, store: Path, out: Path, *options: object) -> Arrays:
    vaearr("look", command, store, *options, "--out", out)
    with np.load(out) as arrays:
        return {name: arrays[name] for name in arrays.files}


def decoded(store: Path, z: NDArray[np.generic], run: str = "vae") -> NDArray[np.float32]:
    """What the run's model makes of latents (..., latent); of a collection of bytes in stored
    units.
    """
    flat = z.reshape(-1, z.shape[-1]).astype("float32")
    pictures = np.asarray(va.load_model(store, run).decode(flat))
    pictures = pictures.reshape(*z.shape[:-1], *pictures.shape[1:])
    return 127.5 * (pictures + 1) if "sample" in zarr(store).dims else pictures


def check_decoded(store: Path, found: Arrays) -> None:
    np.testing.assert_allclose(
        found["decoded"], decoded(store, found["latents"]), rtol=1e-3, atol=1e-2
    )


def test_draws(images_template: Path, tmp_path: Path) -> None:
    vaearr("look", "sample", images_template, "--n", 5, "--seed", 7, "--out", tmp_path / "a")
    z = read_csv(tmp_path / "a" / "z.csv", "latent_")
    assert z.shape == (5, 3)
    singles = sorted((tmp_path / "a").glob("sample_*.png"))
    assert len(singles) == 5
    assert (tmp_path / "a" / "sample.png").exists()
    drawn = va.load_run(images_template).sample(n_samples=3, seed=7)
    np.testing.assert_allclose(drawn.latents, z[:3], rtol=1e-6)  # fewer are the first of more
    np.testing.assert_allclose(
        drawn.decoded, decoded(images_template, drawn.latents.values), rtol=1e-4, atol=1e-2
    )
    assert not np.allclose(va.load_run(images_template).sample(n_samples=3, seed=8).latents, z[:3])
    many = va.load_run(images_template).sample(n_samples=4000, seed=1).latents.values
    assert abs(many.mean(0)).max() < 0.08
    assert abs(many.std(0) - 1).max() < 0.08


def test_fitted_prior(trained_template: Path) -> None:
    ds = zarr(trained_template)
    mean, std = (ds[name].values[ds.roi.values] for name in ("latents", "latents_std"))
    many = (
        va.load_run(trained_template).sample(n_samples=4000, seed=1, source="fitted").latents.values
    )
    spread = np.sqrt(mean.var(0) + (std**2).mean(0))
    assert (abs(many.mean(0) - mean.mean(0)) < 0.1 * spread).all()
    np.testing.assert_allclose(many.std(0), spread, rtol=0.1)


@pytest.mark.parametrize("method", ["lerp", "slerp"])
def test_ways(method: str, images_template: Path, tmp_path: Path) -> None:
    ds = zarr(images_template)
    a, b = (ds.latents.values[i].astype(float) for i in (2, 30))
    ends = ("--a", 2, "--b", 30, "--steps", 6, "--method", method)
    vaearr("look", "interpolate", images_template, *ends, "--out", tmp_path / "way")
    z = read_csv(tmp_path / "way" / "z.csv", "latent_")
    t = np.linspace(0, 1, 6)[:, None]
    angle = np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
    lerp = (1 - t) * a + t * b
    slerp = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    np.testing.assert_allclose(z, lerp if method == "lerp" else slerp, rtol=2e-3, atol=1e-4)
    same = va.load_run(images_template).interpolate(2, 30, steps=6, method=method)
    np.testing.assert_allclose(same.latents, z, rtol=1e-5, atol=1e-6)


def test_decoded_points_far_from_every_sample_are_marked(trained_store: Path) -> None:
    run = va.load_run(trained_store)
    moved = run.traverse(span=(-50, 50), steps=3, others="base")
    ds = zarr(trained_store)
    kl = run.statistics().kl.values
    assert moved.latent_dim.values.tolist() == np.argsort(-kl).tolist()
    samples = ds.latents.values[ds.roi.values] / run.statistics().aggregate_std.values
    between = np.linalg.norm(samples[:, None] - samples, axis=-1)
    np.fill_diagonal(between, np.inf)
    nearest = between.min(1)
    points = moved.latents.values / run.statistics().aggregate_std.values
    distances = np.linalg.norm(points[..., None, :] - samples, axis=-1).min(-1)
    expected = distances / np.median(nearest[nearest > 0])
    np.testing.assert_allclose(moved.distance_to_data, expected, rtol=1e-3, atol=1e-3)
    assert moved.is_far.values.tolist() == len(kl) * [[True, False, True]]
    np.testing.assert_array_equal(moved.is_far, distances > np.quantile(nearest, 0.99))
    for result, is_explained in ((moved, True), (run.traverse(), False)):
        figure = on_paper(va.view(result), titles=True)
        words = " ".join(figure.get_suptitle().split())
        assert ("framed: far from every sample" in words) == is_explained
    plane = run.manifold(span=(-50, 50), steps=3)
    assert plane.is_far.values.sum() == 8
    assert {plane.row.long_name, plane.column.long_name} == {
        f"latent {dim}" for dim in moved.latent_dim.values[:2]
    }


def test_prototypes(trained_template: Path, tmp_path: Path) -> None:
    ds = zarr(trained_template)
    found = explored("prototypes", trained_template, tmp_path / "a.npz", "--by", "phase")
    for number, code in enumerate((0, 1)):
        members = (ds.phase.values == code) & ds.roi.values
        assert found["n"][number] == members.sum()
        np.testing.assert_allclose(
            found["latents"][number], ds.latents.values[members].mean(0), rtol=1e-4, atol=1e-6
        )
        number_in_grid = found["number"][number]
        assert members.ravel()[number_in_grid]
        sample = ds.latents.values.reshape(-1, 3)[number_in_grid]
        np.testing.assert_allclose(found["sample_latents"][number], sample, rtol=1e-4, atol=1e-6)
        assert found["x_of_sample"][number] == ds.x.values[number_in_grid % ds.sizes["x"]]
    for latents, picture in (("latents", "decoded_mean"), ("sample_latents", "decoded")):
        check_decoded(trained_template, {"latents": found[latents], "decoded": found[picture]})
    assert [str(name) for name in found["class"]] == ["ferrite", "austenite"]
    some = explored(
        "prototypes",
        trained_template,
        tmp_path / "some.npz",
        "--by",
        "phase",
        "--class",
        "austenite",
    )
    assert [str(name) for name in some["class"]] == ["austenite"]
    np.testing.assert_allclose(some["decoded"][0], found["decoded"][1], atol=1e-5)
    told = vaearr("look", "prototypes", trained_template, "--by", "grains").out
    assert len([line for line in told.splitlines() if line.split()[0].startswith("cluster_")]) == 4


@pytest.mark.parametrize("command", ["traverse", "manifold", "line"])
def test_pictures_start_from_a_real_sample(
    command: str, trained_template: Path, tmp_path: Path
) -> None:
    """Of the half of the samples that have the closest neighbours, from the one nearest the mean."""
    ds = zarr(trained_template)
    known = ds.latents.values[ds.roi.values].astype(float)
    distances = np.linalg.norm(known[:, None] - known, axis=2) + np.diag([np.inf] * len(known))
    fifth = np.sort(distances, axis=1)[:, 4]
    crowded = known[fifth <= np.median(fifth) * (1 + 1e-6)]
    nearest = np.linalg.norm(crowded - known.mean(0), axis=1).min()
    options = {
        "line": ("--point=0:0", "--point=1:1"),
        "traverse": ("--dim", 0, "--steps", 3, "--others", "base"),
        "manifold": (),
    }
    found = explored(command, trained_template, tmp_path / "a.npz", *options[command])
    base = ds.latents.sel(x=float(found["base_x"]), y=float(found["base_y"])).values
    assert np.linalg.norm(base - known.mean(0)) == pytest.approx(nearest, rel=1e-4)
    np.testing.assert_allclose(found["latents"][..., 2], base[2], atol=1e-6)
    told = vaearr(
        "look", command, trained_template, *options[command], "--out", tmp_path / "a.png"
    ).out
    assert command == "manifold" or "typical of all samples" in told


@pytest.mark.parametrize("base", ["mean", "prototype:bar", "11"])
def test_traversals(base: str, images_template: Path, tmp_path: Path) -> None:
    ds = zarr(images_template)
    options = (
        "--dim",
        2,
        "--dim",
        0,
        "--steps",
        5,
        "--span=-2:1",
        "--unit",
        "absolute",
        "--by",
        "label",
    )
    options = (*options, "--base", base, "--others", "base")
    found = explored("traverse", images_template, tmp_path / "a.npz", *options)
    assert found["latents"].shape == (2, 5, 3)
    names = ds.label.attrs["flag_meanings"].split()
    bar = ds.label.attrs["flag_values"][names.index("bar")]
    start = {
        "mean": ds.latents.values.mean(0),
        "prototype:bar": ds.latents.values[ds.label.values == bar].mean(0),
        "11": ds.latents.values[11],
    }[base]
    np.testing.assert_allclose(found["base"], start, rtol=1e-4, atol=1e-6)
    for row, dim in enumerate((2, 0)):
        others = [other for other in range(3) if other != dim]
        np.testing.assert_allclose(
            found["latents"][row][:, others], np.tile(start[others], (5, 1)), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            found["latents"][row][:, dim], np.linspace(-2, 1, 5), rtol=1e-4, atol=1e-5
        )
    check_decoded(images_template, found)


def test_traversals_follow_the_samples(trained_store: Path, tmp_path: Path) -> None:
    """Of the samples closest to each value, the one most like the base in the other dimensions."""
    found = explored("traverse", trained_store, tmp_path / "a.npz", "--base", "3:2")
    ds = zarr(trained_store)
    samples = ds.latents.values[ds.roi.values].astype(float)
    scale = va.load_run(trained_store).statistics().aggregate_std.values
    base = found["base"].astype(float)
    for row, dim in enumerate(found["latent_dim"]):
        low, high = base[dim] - 3 * scale[dim], base[dim] + 3 * scale[dim]
        values = np.linspace(*np.clip([low, high], samples[:, dim].min(), samples[:, dim].max()), 9)
        closest = abs(samples[:, [dim]] - values).argmin(1)
        others = np.delete((samples - base) / scale, dim, axis=1)
        distances = np.linalg.norm(others, axis=1)
        for step in np.unique(closest):
            expected = distances[closest == step].min()
            latents = found["latents"][row, step]
            assert (abs(samples - latents).max(1) < 1e-4).any()
            distance = np.linalg.norm(np.delete((latents - base) / scale, dim))
            assert distance == pytest.approx(expected, abs=1e-4)
        np.testing.assert_array_equal(found["value"][row], found["latents"][row, :, dim])
    assert not found["is_far"].any()
    check_decoded(trained_store, found)


def test_traversals_in_standard_deviations(trained_template: Path, tmp_path: Path) -> None:
    found = explored(
        "traverse", trained_template, tmp_path / "a.npz", "--steps", 3, "--others", "base"
    )
    assert found["latents"].shape == (3, 3, 3)
    ds = zarr(trained_template)
    mean, std = (ds[name].values[ds.roi.values] for name in ("latents", "latents_std"))
    spread = np.sqrt(mean.var(0) + (std**2).mean(0))
    for dim in range(3):
        np.testing.assert_allclose(
            np.ptp(found["latents"][dim, :, dim]), 6 * spread[dim], rtol=1e-2
        )


def test_files_by_their_endings_are_replaced_only_with_overwrite(
    images_template: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "a.npz", "a.gif"):
        command = (
            "look",
            "interpolate",
            images_template,
            "--a",
            0,
            "--steps",
            5,
            "--out",
            tmp_path / name,
        )
        vaearr(*command, "--b", 9)
        before = (tmp_path / name).read_bytes()
        assert "--overwrite" in vaearr(*command, "--b", 30, code=EXISTS).error
        assert (tmp_path / name).read_bytes() == before
        vaearr(*command, "--b", 30, "--overwrite")
        assert (tmp_path / name).read_bytes() != before
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames >= 5
    assert (
        "must end in"
        in vaearr("look", "sample", images_template, "--out", tmp_path / "b.gif", code=USAGE).error
    )


def test_plane(images_template: Path, tmp_path: Path) -> None:
    options = (
        "--dim",
        2,
        "--dim",
        1,
        "--steps",
        4,
        "--span=-1:3",
        "--unit",
        "absolute",
        "--base",
        "mean",
    )
    found = explored("manifold", images_template, tmp_path / "a.npz", *options)
    mean = zarr(images_template).latents.values.mean(0)
    assert found["decoded"].shape[:2] == (4, 4)
    ticks = np.linspace(-1, 3, 4)
    rows, columns = found["latents"][..., 1], found["latents"][..., 2]
    np.testing.assert_allclose(columns, np.tile(ticks, (4, 1)), atol=1e-5)
    np.testing.assert_allclose(np.sort(rows, 0), np.tile(ticks[:, None], (1, 4)), atol=1e-5)
    np.testing.assert_allclose(found["latents"][..., 0], mean[0], atol=1e-6)
    np.testing.assert_allclose(found["column"], found["latents"][0, :, 2], atol=1e-5)
    np.testing.assert_allclose(found["row"], found["latents"][:, 0, 1], atol=1e-5)
    check_decoded(images_template, found)


def test_points_and_lines(images_template: Path, tmp_path: Path) -> None:
    ends = ("--point=-1:0.5", "--point=2:1")
    plane = explored("line", images_template, tmp_path / "plane.npz", *ends, "--dim", 1, "--dim", 2)
    np.testing.assert_allclose(plane["latents"][:, 1:], [[-1, 0.5], [2, 1]], atol=1e-6)
    check_decoded(images_template, plane)
    line = explored(
        "line", images_template, tmp_path / "line.npz", *ends, "--steps", 4, "--dim", 0, "--dim", 1
    )
    np.testing.assert_allclose(line["latents"][:, :2], np.linspace([-1, 0.5], [2, 1], 4), atol=1e-6)


def test_pca_is_inverted_exactly(trained_template: Path, tmp_path: Path) -> None:
    ds = zarr(trained_template)
    points = ("--point=-0.5:0.2", "--point=0.4:0.1")
    found = explored("line", trained_template, tmp_path / "a.npz", "--space", "pca", *points)
    values = ds.latents.values[ds.roi.values].astype(float)
    _, _, axes = np.linalg.svd(values - values.mean(0), full_matrices=False)
    place = (found["latents"] - values.mean(0)) @ axes[:2].T
    np.testing.assert_allclose(abs(place), abs(np.array([[-0.5, 0.2], [0.4, 0.1]])), atol=1e-4)
    np.testing.assert_allclose(found["position"], [[-0.5, 0.2], [0.4, 0.1]], atol=1e-4)
    assert found["scatter"].shape == (len(values), 2)
    check_decoded(trained_template, found)


def test_nearest_sample_in_tsne(images_template: Path, tmp_path: Path) -> None:
    """Of a map that has no inverse; the perplexity is made to fit 36 samples."""
    options = ("--space", "tsne", "--perplexity", 500, "--seed", 2, "--point=0:0")
    found = explored("line", images_template, tmp_path / "a.npz", *options)
    distances = np.linalg.norm(found["scatter"] - found["position"][0], axis=1)
    assert distances.min() < 1e-6
    nearest = np.linalg.norm(found["scatter"] - np.zeros(2), axis=1).argmin()
    np.testing.assert_allclose(
        found["latents"][0], zarr(images_template).latents.values[found["number"][nearest]]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("traverse", "--dim", 9),
        ("traverse", "--base", "prototype:nosuch"),
        ("manifold", "--dim", 1, "--dim", 1),
        ("line", "--space", "plane"),
        ("interpolate", "--a", 0, "--b", 99),
        ("sample", "--n", 0),
        ("sample", "--source", "elsewhere"),
        ("prototypes", "--by", "nosuch"),
        ("interpolate", "--a", 0, "--b", 1, "--method", "spline"),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_refusals_are_one_line(arguments: tuple[object, ...], images_template: Path) -> None:
    command, *options = arguments
    done = vaearr("look", command, images_template, *options, code=None)
    assert done.code != 0
    assert done.error


def test_a_layout_is_kept_for_other_classes(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = va.load_run(trained_store)
    one = run.scatter("tsne", by="grains")
    monkeypatch.setattr("vaearr.analysis.planes.embed", None)  # nothing is computed again
    other = run.scatter("tsne", by="phase")
    xr.testing.assert_equal(one.drop_vars("class"), other.drop_vars("class"))
    assert not one["class"].equals(other["class"])
