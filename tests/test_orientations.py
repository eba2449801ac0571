"""Misorientations: equal to those of orix, NaN-safe, independent of how an orientation is written down."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.analysis import orientations as o
from vaearr.errors import SchemaError, UsageError
from vaearr.sources.ebsd_maps import euler_to_quaternion

SCHOENFLIES = {
    "-1": "Ci", "mmm": "D2h", "4/m": "C4h", "4/mmm": "D4h", "-3": "S6", "-3m": "D3d", "6/m": "C6h", "6/mmm": "D6h",
    "m-3": "Th", "m-3m": "Oh",
}  # fmt: skip


def random_quaternions(n: int, seed: int = 0) -> np.ndarray:
    q = np.random.default_rng(seed).normal(size=(n, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def multiply(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions (..., 4), scalar first."""
    a, b, v, w = p[..., :1], q[..., :1], p[..., 1:], q[..., 1:]
    scalar = a * b - (v * w).sum(-1, keepdims=True)
    return np.concatenate([scalar, a * w + b * v + np.cross(v, w)], axis=-1)


def group(laue: str) -> np.ndarray:
    return np.roll(o.symmetry_rotations(laue).as_quat(), 1, axis=1)


def turned(
    q: np.ndarray, degrees: float | np.ndarray, axis: tuple[float, float, float] = (0.36, 0.48, 0.8)
) -> np.ndarray:
    """Orientations turned in the crystal frame."""
    half = np.deg2rad(np.asarray(degrees, dtype="f8")) / 2
    turn = np.concatenate([np.cos(half)[..., None], np.sin(half)[..., None] * np.array(axis)], axis=-1)
    return multiply(turn, q)


def dataset(quaternion: np.ndarray, phase: np.ndarray | None = None, laue: dict[str, str] | None = None) -> xr.Dataset:
    ny, nx = quaternion.shape[:2]
    numbers = np.zeros((ny, nx), "i2") if phase is None else phase
    attrs = {"laue_groups": laue or {"0": "m-3m", "1": "6/mmm"}}
    return xr.Dataset(
        {"quaternion": (("y", "x", "quaternion_component"), quaternion), "phase": (("y", "x"), numbers, attrs)},
        coords={"y": np.arange(ny) * 0.5, "x": np.arange(nx) * 0.5},
    )


# symmetry


@pytest.mark.parametrize("laue", SCHOENFLIES)  # orix has the two-fold axis of 2/m along z, not y
def test_angles_equal_those_of_orix(laue: str) -> None:
    orix = pytest.importorskip("orix.quaternion", reason="the extra [ebsd] is not installed: nothing to compare with")
    groups = pytest.importorskip("orix.quaternion.symmetry")
    a, b = random_quaternions(1000, 1), random_quaternions(1000, 2)
    b[:300] = turned(a[:300], np.linspace(0.001, 3, 300))
    same = getattr(groups, SCHOENFLIES[laue])
    reference = orix.Orientation(a, symmetry=same).angle_with(orix.Orientation(b, symmetry=same), degrees=True)
    np.testing.assert_allclose(o.misorientation_angles(a, b, laue), reference, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(laue=st.sampled_from(sorted(o.ROTATIONS)), seed=st.integers(0, 999), angle=st.floats(0, 10))
def test_equivalent_orientations_do_not_matter(laue: str, seed: int, angle: float) -> None:
    rng = np.random.default_rng(seed)
    rotations = group(laue)
    a = random_quaternions(20, seed)
    b = turned(a, angle)
    pick = rng.integers(0, len(rotations), (2, 20))
    other_a = multiply(rotations[pick[0]], a) * rng.choice([-1, 1], (20, 1)) * 3
    other_b = multiply(rotations[pick[1]], b)
    np.testing.assert_allclose(o.misorientation_angles(a, b, laue), angle, atol=1e-6)
    np.testing.assert_allclose(o.misorientation_angles(other_a, other_b, laue), angle, atol=1e-6)
    np.testing.assert_allclose(o.misorientation_angles(other_b, other_a, laue), angle, atol=1e-6)


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


def test_euler_angles_serve_as_well() -> None:
    angles = np.random.default_rng(0).random((4, 5, 3))
    ds = dataset(euler_to_quaternion(angles))
    other = ds.drop_vars("quaternion").assign(euler=(("y", "x", "angle"), angles))
    xr.testing.assert_allclose(o.misorientation(ds), o.misorientation(other))
    alone = other.drop_vars("phase")
    xr.testing.assert_allclose(o.misorientation(ds), o.misorientation(alone, symmetries="m-3m"))
    assert not o.grain_boundaries(alone, 90, symmetries="m-3m").any()
    given_phase = alone.assign(phase=ds.phase.astype("f4").drop_attrs())
    xr.testing.assert_allclose(o.misorientation(given_phase, symmetries={0: "m-3m"}), o.misorientation(ds))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ds: o.misorientation(ds.drop_vars("quaternion")), SchemaError, "ingest an orientation map"),
        (lambda ds: o.misorientation(ds.drop_vars("phase")), SchemaError, "there is no phase"),
        (lambda ds: o.misorientation(ds.isel(quaternion_component=slice(3))), SchemaError, "neither quaternion"),
        (lambda ds: o.misorientation(ds, symmetries={1: "m-3m"}), UsageError, "Laue group of phase 0 is not known"),
        (lambda ds: o.misorientation(ds, symmetries="m3m"), UsageError, "no Laue group 'm3m'.* Did you mean 'm-3m'"),
        (lambda ds: o.kernel_average_misorientation(ds, kernel=0), UsageError, "kernel=0 must be at least 1"),
        (lambda ds: o.grain_boundaries(ds, threshold=-1), UsageError, "threshold=-1 must be above 0"),
    ],
)
def test_refusals(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(dataset(random_quaternions(6).reshape(2, 3, 4)))  # type: ignore[operator]
