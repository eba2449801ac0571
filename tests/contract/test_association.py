"""Associations: every metric against its dense formula, small samples, missing values, p-values,
partitions, tables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from sklearn.feature_selection import mutual_info_regression

import vaearr as va
from vaearr.config import AssociateConfig, SignificanceConfig
from vaearr.errors import SchemaError

from . import inputs
from .harness import vaearr, zarr

PARTIAL = {1: "partial_pearson", 2: "partial_pearson_2", 3: "partial_pearson_3"}
TARGETS = ["BC", "Fe", "Ni", "phase: ferrite", "phase: austenite"]
RUN = ("--run", "theirs")
AS_STORED = ("--significance", "--set", "significance.n_surrogates=99")


def maps(
    shape: tuple[int, int], *, latents: int = 2, seed: int = 0
) -> tuple[xr.DataArray, xr.DataArray]:
    """Random latents and a random map, unrelated, over y and x."""
    rng = np.random.default_rng(seed)
    coords = {"y": 0.5 * np.arange(shape[0]), "x": 7.0 + 0.25 * np.arange(shape[1])}
    z = xr.DataArray(rng.normal(size=(*shape, latents)), coords, ("y", "x", "latent"), "latents")
    return z, xr.DataArray(rng.normal(size=shape), coords, ("y", "x"), "BC")


def terms(y: np.ndarray, x: np.ndarray, degree: int) -> np.ndarray:
    """Polynomials of the position up to a total degree as orthonormal columns, only those that the
    points determine.
    """
    y, x = y / max(y.max(), 1), x / max(x.max(), 1)
    every = np.stack(
        [x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=1
    )
    u, s, _ = np.linalg.svd(every, full_matrices=False)
    return np.asarray(u[:, s > 1e-9 * s[0]])


def partial(x: np.ndarray, y: np.ndarray, basis: np.ndarray) -> float:
    left = [v - basis @ (basis.T @ v) for v in (x - x.mean(), y - y.mean())]
    return float(np.corrcoef(*left)[0, 1])


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (2, 3), (3, 3), (2, 5), (4, 4)])
def test_a_trend_that_leaves_less_than_two_degrees_of_freedom_leaves_no_correlation(
    shape: tuple[int, int], degree: int
) -> None:
    latents, target = maps(shape)
    found = va.associate(latents, target, [PARTIAL[degree]]).values.ravel()
    basis = terms(*(axis.ravel().astype(float) for axis in np.indices(shape)), degree)
    if (
        basis.shape[0] - basis.shape[1] < 2
    ):  # what is left of any two maps lies on one line: r = +-1 whatever they are
        assert np.isnan(found).all()
        return
    expected = [
        partial(one, target.values.ravel(), basis) for one in latents.values.reshape(-1, 2).T
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_no_metric_is_perfect_by_the_number_of_points_alone() -> None:
    latents, target = maps((6, 6), latents=4)
    metrics = [
        "pearson",
        "distance_correlation",
        "hsic_normalised",
        "mutual_information",
        *PARTIAL.values(),
    ]
    for points in range(1, 9):
        few = np.full(36, np.nan)
        few[::5][:points] = target.values.ravel()[::5][:points]
        table = va.associate(latents, target.copy(data=few.reshape(6, 6)), metrics)
        assert not (np.abs(table.sel(metric=metrics[:3] + metrics[4:])) > 1 - 1e-9).any(), points
        assert int(table["n"]) == points
        assert np.isnan(table.sel(metric="mutual_information")).all() == (points < 8)
        assert points >= 3 or np.isnan(table).all()


def centred(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix - matrix.mean(0) - matrix.mean(1)[:, None] + matrix.mean())


def dense(x: np.ndarray, y: np.ndarray, row: np.ndarray, column: np.ndarray) -> dict[str, float]:
    """Every metric by its formula, with matrices of all pairs."""
    n = len(x)
    distances = [np.abs(np.subtract.outer(v, v)) for v in (x, y)]
    a, b = (centred(d) for d in distances)
    k, l = (np.exp(-(d**2) / (2 * np.median(d[d > 0]) ** 2 + 1e-12)) for d in distances)  # noqa: E741
    kc, lc, ones = centred(k), centred(l), np.ones(n)
    k0, l0 = k - np.eye(n), l - np.eye(n)
    unbiased = (
        (k0 * l0).sum()
        + k0.sum() * l0.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (ones @ k0) @ (l0 @ ones)
    )
    return {
        "pearson": float(np.corrcoef(x, y)[0, 1]),
        "spearman": float(scipy.stats.spearmanr(x, y).statistic),
        "kendall": float(scipy.stats.kendalltau(x, y).statistic),
        "mutual_information": float(
            mutual_info_regression(x[:, None], y, n_neighbors=7, random_state=0)[0]
        ),
        "distance_correlation": float(
            np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))
        ),
        "hsic": float((kc * lc).sum() / (n - 1) ** 2),
        "hsic_normalised": float((kc * lc).sum() / np.sqrt((kc * kc).sum() * (lc * lc).sum())),
        "hsic_unbiased": float(unbiased / (n * (n - 3))),
        **{name: partial(x, y, terms(row, column, degree)) for degree, name in PARTIAL.items()},
    }


def test_metrics_equal_their_dense_formulae(known_template: Path) -> None:
    ds = va.open_store(known_template)
    names = ["all", "hsic_normalised", "hsic_unbiased", "partial_pearson_2", "partial_pearson_3"]
    table = va.associate(ds.latents_theirs, ds.BC, names)
    assert table.dims == ("metric", "latent")
    row, column = (axis.astype(float) for axis in np.nonzero(np.isfinite(ds.BC.values)))
    contrast = ds.BC.values[np.isfinite(ds.BC.values)].astype(float)
    for latent in range(3):
        values = ds.latents_theirs.values[..., latent][np.isfinite(ds.BC.values)].astype(float)
        expected = dense(values, contrast, row, column)
        assert set(expected) == set(table.metric.values)
        for metric, value in expected.items():
            assert float(table.sel(metric=metric, latent=latent)) == pytest.approx(
                value, rel=1e-6, abs=1e-9
            ), metric


def test_the_kept_table(known_template: Path) -> None:
    ds, table = zarr(known_template), zarr(known_template, "runs/theirs/association")
    assert dict(table.association.sizes) == {"metric": 2, "latent_theirs": 5, "target": 5}
    assert list(table.target.values) == TARGETS
    phase = np.where(ds.phase.values >= 0, ds.phase.values, np.nan)
    sides = [ds.BC.values, *ds.elements.transpose("element", ...).values]
    sides += [np.where(np.isnan(phase), np.nan, phase == code) for code in (0, 1)]
    for target, side in zip(TARGETS, sides, strict=True):
        keep = np.isfinite(side) & np.isfinite(ds.latents_theirs.values[..., 0])
        assert int(table["n"].sel(target=target)) == keep.sum()
        for latent in range(5):
            values = ds.latents_theirs.values[..., latent][keep]
            at = table.association.sel(target=target, latent_theirs=latent)
            assert float(at.sel(metric="pearson")) == pytest.approx(
                np.corrcoef(values, side[keep])[0, 1], abs=1e-6
            )
            rho = scipy.stats.spearmanr(values, side[keep]).statistic
            assert float(at.sel(metric="spearman")) == pytest.approx(rho, abs=1e-6)


def test_sums_and_luminance_of_elements(known_store: Path) -> None:
    ds = zarr(known_store)
    fe, ni = (
        (m - np.nanmin(m)) / (np.nanmax(m) - np.nanmin(m))
        for m in ds.elements.transpose("element", ...).values
    )
    keep = np.isfinite(fe)
    expected = {
        "Fe + 0.5*Ni": fe + 0.5 * ni,
        "Fe - Ni": fe - ni,
        "rgb(Ni, Fe)": 0.2126 * ni + 0.7152 * fe,
    }
    expected["rgb(Ni, Fe)"] += 0.0722 * (ni + fe) / 2  # of two elements, blue is the mean
    options = [option for target in expected for option in ("--target", target)]
    out = vaearr(
        "associate", known_store, *RUN, *options, "--metric", "pearson", "--name", "sums"
    ).out
    table = zarr(known_store, "runs/theirs/association_sums").association.sel(metric="pearson")
    assert list(table.target.values) == list(expected)
    for target, side in expected.items():
        assert f" {target} " in out
        for latent in range(5):
            r = np.corrcoef(ds.latents_theirs.values[..., latent][keep], side[keep])[0, 1]
            assert float(table.sel(target=target, latent_theirs=latent)) == pytest.approx(
                r, abs=1e-5
            )


def test_the_strongest_are_listed_by_size_and_ties_are_told(known_store: Path) -> None:
    out = vaearr(
        "associate",
        known_store,
        *RUN,
        "--metric",
        "pearson",
        "--target",
        "BC",
        "--top",
        5,
        "--name",
        "short",
    ).out
    rows = [line.split() for line in out.splitlines() if line.split()[:1] == ["pearson"]]
    order = [int(row[2]) for row in rows]
    table = zarr(known_store, "runs/theirs/association").association
    strength = np.abs(table.sel(metric="pearson", target="BC").values)
    assert strength[order].tolist() == sorted(strength, reverse=True)
    assert sorted(row[2] for row in rows if row[4] == "True") == ["2", "4"]  # they are the same


def test_p_values(known_template: Path) -> None:
    table = zarr(known_template, "runs/theirs/association")
    p, adjusted = table.p_value, table.p_adjusted
    assert float(p.min()) >= 1 / 100
    assert float(p.max()) <= 1
    is_tested = table.association.notnull() & (table.n_effective >= 20)
    np.testing.assert_array_equal(p.notnull(), is_tested)
    assert bool((adjusted >= p - 1e-12).where(is_tested, True).all())
    ds = va.open_store(known_template)
    first, second = (
        va.associate(ds.latents_theirs, ds.BC, "pearson", roi=ds.roi_theirs, significance=True)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.p_value, second.p_value)  # seeded
    near = p.sel(metric="pearson", target="BC").values  # of 99 surrogate maps, the others of 199
    np.testing.assert_allclose(first.p_value.values.ravel(), near, atol=0.15)


def test_no_p_value_without_an_association() -> None:
    found = va.associate(*maps((6, 5)), ["pearson", "partial_pearson_3"], significance=True)
    latents, target = maps((6, 5))
    few = va.associate(
        latents,
        target.where((target.y < 1) & (target.x < 7.5)),
        ["pearson", "partial_pearson"],
        significance=True,
    )
    assert few.p_value.isnull().all()
    assert few.association.sel(metric="pearson").notnull().all()
    assert np.isfinite(found.p_value.sel(metric="pearson")).all()


def test_p_values_of_a_config_are_kept(known_store: Path) -> None:
    run = va.load_run(known_store, "theirs")
    config = AssociateConfig(significance=SignificanceConfig(n_surrogates=99, seed=7))
    table = run.associate("BC", metrics="pearson", config=config, significance=True, name="seven")
    assert table.attrs["config"]["seed"] == 7


def test_a_class_without_a_point_in_the_subset_gets_no_p_value() -> None:
    latents, target = maps((60, 50))
    is_rare = target == target[3, 4]  # a single point
    settings = SignificanceConfig(n_surrogates=19, max_points=100)
    table = va.associate(latents[..., :1], is_rare.astype(float), "kendall", significance=settings)
    assert table.association.notnull().all()
    assert table.p_value.isnull().all()


def test_elements_are_scaled_between_quantiles_on_request(known_store: Path) -> None:
    command = ("associate", known_store, *RUN, "--target", "Fe + 0.5*Ni", "--name", "scaled")
    vaearr(*command, "--quantiles", "0.1:0.9")
    ds, table = zarr(known_store), zarr(known_store, "runs/theirs/association_scaled")
    inside = ds.roi_theirs.values & np.isfinite(ds.latents_theirs.values).all(-1)
    shares = []
    for element in ("Fe", "Ni"):
        values = ds.elements.sel(element=element).values.astype(float)
        low, high = np.nanquantile(values[ds.roi_theirs.values], [0.1, 0.9])
        shares.append(np.clip((values - low) / (high - low), 0, 1))
    expected = shares[0] + 0.5 * shares[1]
    latents = ds.latents_theirs.values[inside & np.isfinite(expected)].astype(float)
    r = [
        scipy.stats.pearsonr(column, expected[inside & np.isfinite(expected)])[0]
        for column in latents.T
    ]
    np.testing.assert_allclose(table.association.sel(metric="pearson").values.ravel(), r, atol=1e-5)
    assert "already" in vaearr(*command, "--quantiles", "0.1:0.9").err
    assert "quantiles" in vaearr(*command, code=73).error
    assert "0 <= low < high <= 1" in vaearr(*command, "--quantiles", "0.9:0.1", code=2).error


def test_clusters_of_each_latent_against_a_reference(known_store: Path) -> None:
    out = vaearr(
        "associate", known_store, *RUN, *AS_STORED, "--reference", "phase", "--k-max", 4
    ).out
    ds, found = zarr(known_store), zarr(known_store, "runs/theirs/partitions_phase")
    assert dict(found.sizes) == {"latent_theirs": 5}
    keep = (ds.phase.values >= 0) & np.isfinite(ds.latents_theirs.values[..., 0])
    assert (found["n"].values == keep.sum()).all()
    assert int(np.argmax(found.ari.values)) in (1, 3)
    assert float(found.ari[2]) == float(found.ari[4]) == pytest.approx(0, abs=0.05)
    assert "k_reference = 2" in out


def test_advice_to_try_more_clusters_names_an_option_of_the_command(known_store: Path) -> None:
    def warned(*options: object) -> list[str]:
        told = vaearr("associate", known_store, "--run", "nmf", "--reference", "BC", *options).err
        return [line for line in told.splitlines() if line.startswith("warning: ")]

    advice = [line for line in warned("--k-max", 2) if "end of the range" in line]
    assert advice
    assert all("--k-max" in line for line in advice)
    assert "--k-max" in vaearr("associate", "--help").out
    assert "2 to 2" not in " ".join(
        warned("--k-max", 3, "--overwrite")
    )  # made anew, not the table of before


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--metric", "pearsen"), 2, "'pearson'"),
        (("--target", "BX"), 66, "Known"),
        (("--target", "Fe + Xx"), 66, "Xx"),
        (("--target", "__import__('os')"), 66, "__import__"),
        ((*AS_STORED, "--reference", "phases"), 66, "'phase'"),
        (("--reference", "phase", "--k-max", 1), 2, "--k-max"),
        (("--run", "ours"), 66, "theirs"),
        (("--set", "significance.n_surrogates=3"), 2, "n_surrogates"),
        (("--set", "metric=pearson"), 2, "metrics"),
    ],
)
def test_refusals(known_template: Path, options: tuple[object, ...], code: int, words: str) -> None:
    run = () if "--run" in options else RUN
    done = vaearr("associate", known_template, *run, *options, code=code)
    assert words in done.error


def test_a_run_without_latents_or_maps_is_told_what_to_do(tmp_path: Path) -> None:
    store = tmp_path / "bare.zarr"
    vaearr("ingest", inputs.scan_files(tmp_path / "files")["patterns"], store)
    assert "vaearr train" in vaearr("associate", store, code=66).error
    np.save(tmp_path / "theirs.npy", inputs.latents())
    vaearr("attach", store, tmp_path / "theirs.npy", *RUN)
    assert "name a map" in vaearr("associate", store, *RUN, code=66).error


def test_flattened_samples_are_matched_by_their_coordinates() -> None:
    latents, bc = maps((9, 8))
    bc = bc + latents[..., 0]
    roi = bc > -0.5
    samples, target = va.to_samples(latents, roi), va.to_samples(bc, roi)
    turned = target.isel(sample=np.random.default_rng(1).permutation(len(target)))
    expected = va.associate(samples, target, "pearson")
    assert float(abs(expected[0, 0])) > 0.3
    xr.testing.assert_equal(va.associate(samples, turned, "pearson"), expected)
    in_dataset = va.associate(samples, turned.to_dataset(name="BC"), "pearson")
    np.testing.assert_array_equal(in_dataset[..., 0], expected)
    tested, known = (
        va.associate(samples, one, "pearson", significance=True) for one in (turned, target)
    )
    xr.testing.assert_equal(tested, known)
    jointly, joint = (va.associate_jointly(samples, one) for one in (turned, target))
    xr.testing.assert_equal(jointly, joint)
    probed, probe = (va.probe(samples, one, n_permutations=0) for one in (turned, target))
    xr.testing.assert_equal(probed, probe)
    clustered = va.cluster(samples, "kmeans", k=2, roi=turned > 0)
    xr.testing.assert_equal(clustered, va.cluster(samples, "kmeans", k=2, roi=target > 0))
    for other in (turned[1:], turned.assign_coords(x=turned.x + 1), va.to_samples(bc, ~roi)):
        for function in (va.associate, va.associate_jointly, va.probe):
            with pytest.raises(SchemaError, match="has samples at other y, x"):
                function(samples, other)
    with pytest.raises(SchemaError, match=r"carry the coordinates \[\], expected \['x', 'y'\]"):
        va.associate(samples, target.drop_vars(["y", "x"]))
