"""Misorientations: equal to those of orix, NaN-safe, independent of how an orientation is written down.

The simulated scan with known orientations is read where the environment variable VAEARR_TRUTH names its truth.npz.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr import orientations as o
from vaearr.errors import SchemaError, UsageError
from vaearr.sources.ebsd_maps import euler_to_quaternion

ORDERS = {
    "-1": 1, "2/m": 2, "mmm": 4, "4/m": 4, "4/mmm": 8, "-3": 3, "-3m": 6, "6/m": 6, "6/mmm": 12, "m-3": 12, "m-3m": 24,
}  # fmt: skip
SCHOENFLIES = {
    "-1": "Ci", "mmm": "D2h", "4/m": "C4h", "4/mmm": "D4h", "-3": "S6", "-3m": "D3d", "6/m": "C6h", "6/mmm": "D6h",
    "m-3": "Th", "m-3m": "Oh",
}  # fmt: skip


def random_quaternions(n: int, seed: int = 0) -> np.ndarray:
    q = np.random.default_rng(seed).normal(size=(n, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def turned(
    q: np.ndarray, degrees: float | np.ndarray, axis: tuple[float, float, float] = (0.36, 0.48, 0.8)
) -> np.ndarray:
    """Orientations turned in the crystal frame."""
    half = np.deg2rad(np.asarray(degrees, dtype="f8")) / 2
    turn = np.concatenate([np.cos(half)[..., None], np.sin(half)[..., None] * np.array(axis)], axis=-1)
    return o.multiply(turn, q)


def dataset(quaternion: np.ndarray, phase: np.ndarray | None = None, laue: dict[str, str] | None = None) -> xr.Dataset:
    ny, nx = quaternion.shape[:2]
    numbers = np.zeros((ny, nx), "i2") if phase is None else phase
    attrs = {"laue_groups": laue or {"0": "m-3m", "1": "6/mmm"}}
    return xr.Dataset(
        {"quaternion": (("y", "x", "quaternion_component"), quaternion), "phase": (("y", "x"), numbers, attrs)},
        coords={"y": np.arange(ny) * 0.5, "x": np.arange(nx) * 0.5},
    )


# symmetry


@pytest.mark.parametrize("laue", o.GENERATORS)
def test_groups_are_closed(laue: str) -> None:
    rotations = o.symmetry_rotations(laue)
    assert len(rotations) == ORDERS[laue]
    products = o.multiply(rotations[:, None], rotations[None]).reshape(-1, 4)
    np.testing.assert_allclose(np.abs(products @ rotations.T).max(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("laue", SCHOENFLIES)  # orix has the two-fold axis of 2/m along z, not y
def test_angles_equal_those_of_orix(laue: str) -> None:
    orix = pytest.importorskip("orix.quaternion", reason="the extra [ebsd] is not installed: nothing to compare with")
    groups = pytest.importorskip("orix.quaternion.symmetry")
    a, b = random_quaternions(1000, 1), random_quaternions(1000, 2)
    b[:300] = turned(a[:300], np.linspace(0.001, 3, 300))
    group = getattr(groups, SCHOENFLIES[laue])
    reference = orix.Orientation(a, symmetry=group).angle_with(orix.Orientation(b, symmetry=group), degrees=True)
    np.testing.assert_allclose(o.misorientation_angles(a, b, laue), reference, atol=1e-6)


def test_monoclinic_axis_is_b() -> None:
    half_turn = np.array([[0.0, 0.0, 1.0, 0.0]])
    q = random_quaternions(1)
    assert o.misorientation_angles(q, o.multiply(half_turn, q), "2/m")[0] == pytest.approx(0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(laue=st.sampled_from(sorted(ORDERS)), seed=st.integers(0, 999), angle=st.floats(0, 10))
def test_equivalent_orientations_do_not_matter(laue: str, seed: int, angle: float) -> None:
    rng = np.random.default_rng(seed)
    rotations = o.symmetry_rotations(laue)
    a = random_quaternions(20, seed)
    b = turned(a, angle)
    pick = rng.integers(0, len(rotations), (2, 20))
    other_a = o.multiply(rotations[pick[0]], a) * rng.choice([-1, 1], (20, 1)) * 3
    other_b = o.multiply(rotations[pick[1]], b)
    np.testing.assert_allclose(o.misorientation_angles(a, b, laue), angle, atol=1e-6)
    np.testing.assert_allclose(o.misorientation_angles(other_a, other_b, laue), angle, atol=1e-6)
    np.testing.assert_allclose(o.misorientation_angles(other_b, other_a, laue), angle, atol=1e-6)


def test_largest_angles_are_known() -> None:
    """Random cubic pairs stay below 62.8 degrees (Mackenzie, Biometrika 45 (1958) 229), hexagonal ones below 93.84."""
    a, b = random_quaternions(20_000, 3), random_quaternions(20_000, 4)
    for laue, largest in (("m-3m", 62.7994), ("6/mmm", 93.8418), ("-1", 180.0)):
        angles = o.misorientation_angles(a, b, laue)
        assert largest - 2 < angles.max() <= largest + 1e-3


def test_euler_convention() -> None:
    orix = pytest.importorskip("orix.quaternion")
    angles = np.random.default_rng(0).random((500, 3)) * [2 * np.pi, np.pi, 2 * np.pi]
    reference = orix.Rotation.from_euler(angles).data
    dot = np.abs((euler_to_quaternion(angles) * reference).sum(axis=-1))
    np.testing.assert_allclose(dot, 1, atol=1e-12)


# maps


def test_edges_of_a_small_map() -> None:
    base = np.broadcast_to(random_quaternions(1), (2, 3, 4))
    ds = dataset(turned(base, np.array([[0, 2, 10], [1, 4, np.nan]])))
    edges = o.misorientation(ds)
    np.testing.assert_allclose(edges.right, [[2, 8, np.nan], [3, np.nan, np.nan]], rtol=1e-5)
    np.testing.assert_allclose(edges.down, [[1, 2, np.nan], [np.nan] * 3], rtol=1e-5)
    assert edges.right.attrs["units"] == "degree"
    np.testing.assert_array_equal(edges.x, ds.x)
    np.testing.assert_allclose(o.max_misorientation(ds), [[2, 8, 8], [3, 3, np.nan]], rtol=1e-5)
    kam = o.kernel_average_misorientation(ds)
    np.testing.assert_allclose(kam, [[1.5, 2, np.nan], [2, 2.5, np.nan]], rtol=1e-5)
    wide = o.kernel_average_misorientation(ds, max_angle=9)
    np.testing.assert_allclose(wide[0], [1.5, 4, 8], rtol=1e-5)


def test_second_order_kernel_against_a_loop() -> None:
    rng = np.random.default_rng(5)
    q = turned(np.broadcast_to(random_quaternions(1), (6, 7, 4)), rng.random((6, 7)) * 8)
    q[2, 3] = np.nan
    phase = (rng.random((6, 7)) < 0.2).astype("i2")
    ds = dataset(q, phase)
    expected = np.full((6, 7), np.nan)
    for i, j in np.ndindex(6, 7):
        found = []
        for k, m in np.ndindex(6, 7):
            if 0 < abs(i - k) + abs(j - m) <= 2 and phase[i, j] == phase[k, m]:
                laue = {0: "m-3m", 1: "6/mmm"}[int(phase[i, j])]
                angle = o.misorientation_angles(q[i, j][None], q[k, m][None], laue)[0]
                found += [angle] if angle <= 5 else []
        expected[i, j] = np.mean(found) if found else np.nan
    np.testing.assert_allclose(o.kernel_average_misorientation(ds, kernel=2), expected, rtol=1e-5)


def test_phases_and_boundaries() -> None:
    q = np.broadcast_to(random_quaternions(1), (3, 4, 4)).copy()
    q[:, 2:] = turned(q[:, 2:], 20.0)
    q[2, 0] = np.nan
    phase = np.zeros((3, 4), "i2")
    phase[0, 3], phase[2, 3] = 1, -1
    ds = dataset(q, phase)
    edges = o.misorientation(ds)
    assert np.isnan(edges.right[0, 2])  # across phases
    assert np.isnan(edges.down[0, 3])
    expected_phase = np.zeros((3, 4), dtype=bool)
    expected_phase[0, 2] = expected_phase[0, 3] = expected_phase[1, 3] = True
    np.testing.assert_array_equal(o.phase_boundaries(ds), expected_phase)
    expected = expected_phase.copy()
    expected[:, 1:3] = True
    np.testing.assert_array_equal(o.grain_boundaries(ds), expected)
    np.testing.assert_array_equal(o.grain_boundaries(ds, threshold=25), expected_phase)
    assert o.grain_boundaries(ds).dtype == bool
    for low, high in ((5, 15), (15, 25)):  # a higher threshold never adds a boundary
        assert not (o.grain_boundaries(ds, high) & ~o.grain_boundaries(ds, low)).any()


def test_euler_angles_serve_as_well() -> None:
    angles = np.random.default_rng(0).random((4, 5, 3))
    ds = dataset(euler_to_quaternion(angles))
    other = ds.drop_vars("quaternion").assign(euler=(("y", "x", "angle"), angles))
    xr.testing.assert_allclose(o.misorientation(ds), o.misorientation(other))
    alone = other.drop_vars("phase")
    xr.testing.assert_allclose(o.misorientation(ds), o.misorientation(alone, symmetries="m-3m"))
    assert not o.grain_boundaries(alone, 90, symmetries="m-3m").any()
    given_phase = o.misorientation(alone, phase=ds.phase.astype("f4"), symmetries={0: "m-3m"})
    xr.testing.assert_allclose(given_phase, o.misorientation(ds))


def test_one_row_one_column_one_point() -> None:
    for shape in ((1, 1), (1, 5), (5, 1)):
        ds = dataset(random_quaternions(shape[0] * shape[1]).reshape(*shape, 4))
        assert o.misorientation(ds).right.shape == shape
        assert o.kernel_average_misorientation(ds, kernel=3).shape == shape
        assert int(np.isfinite(o.max_misorientation(ds)).sum()) == (0 if shape == (1, 1) else 5)


def test_nothing_is_indexed() -> None:
    ds = dataset(np.full((3, 3, 4), np.nan), np.full((3, 3), -1, "i2"))
    assert o.kernel_average_misorientation(ds).isnull().all()
    assert not o.grain_boundaries(ds).any()


# refusals


def test_refusals() -> None:
    ds = dataset(random_quaternions(6).reshape(2, 3, 4))
    with pytest.raises(SchemaError, match=r"neither 'quaternion' nor 'euler'; ingest an orientation map"):
        o.misorientation(ds.drop_vars("quaternion"))
    with pytest.raises(SchemaError, match=r"no variable 'phase'; give phase="):
        o.misorientation(ds.drop_vars("phase"))
    with pytest.raises(SchemaError, match="has 3 components, expected 4"):
        o.misorientation(ds.isel(quaternion_component=slice(3)))
    with pytest.raises(SchemaError, match=r"'quaternion' has dims \('z', 'y', 'x', 'quaternion_component'\), expected"):
        o.misorientation(ds.expand_dims("z"))
    with pytest.raises(SchemaError, match=r"the phases lie on \(2, 2\) points, the orientations on \(2, 3\)"):
        o.misorientation(ds, phase=ds.phase[:, :2])
    with pytest.raises(SchemaError, match=r"'phase' has dims \('y',\)"):
        o.misorientation(ds, phase=ds.phase[:, 0])
    with pytest.raises(UsageError, match=r"Laue group of phase 0 is not known; give symmetries=\{0: 'm-3m', …\}"):
        o.misorientation(ds, symmetries={1: "m-3m"})
    with pytest.raises(UsageError, match=r"no Laue group 'm3m'.* Did you mean 'm-3m'\?"):
        o.misorientation(ds, symmetries="m3m")
    with pytest.raises(UsageError, match="kernel=0 must be at least 1"):
        o.kernel_average_misorientation(ds, kernel=0)
    with pytest.raises(UsageError, match="max_angle=0 above 0"):
        o.kernel_average_misorientation(ds, max_angle=0)
    with pytest.raises(UsageError, match="threshold=-1 must be above 0"):
        o.grain_boundaries(ds, threshold=-1)


@pytest.mark.skipif("VAEARR_TRUTH" not in os.environ, reason="VAEARR_TRUTH names no truth.npz: not compared with it")
def test_simulated_scan_with_known_grains() -> None:
    with np.load(os.environ["VAEARR_TRUTH"], allow_pickle=False) as truth:
        q, phase, grain = truth["quaternion"], truth["phase"].astype("i2"), truth["grain_id"]
    ds = dataset(q, phase, {"0": "m-3m", "1": "m-3m"})
    edges = o.misorientation(ds)
    same = grain[:, 1:] == grain[:, :-1]
    inside = edges.right.values[:, :-1][same]
    assert np.nanmax(inside) < 2
    kam = o.kernel_average_misorientation(ds)
    assert 0.02 < float(kam.mean()) < 1
    found = o.grain_boundaries(ds, threshold=5).values
    true = np.zeros(grain.shape, dtype=bool)
    for axis in (0, 1):
        differs = np.diff(grain, axis=axis) != 0
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        true[first] |= differs
        true[second] |= differs
    assert (found & ~true).sum() == 0
    assert (found & true).sum() > 0.97 * true.sum()
    np.testing.assert_array_equal(
        o.phase_boundaries(ds).values[:, :-1] | (phase[:, 1:] == phase[:, :-1]), np.ones(phase[:, 1:].shape, bool)
    )
