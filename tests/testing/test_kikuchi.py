"""The physics of the synthetic patterns, against textbook values and geometry done by hand."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from vaearr.testing import kikuchi as k


def test_wavelength_is_the_textbook_value():
    # Williams and Carter, Transmission Electron Microscopy, table 1.2
    assert k.electron_wavelength(100) == pytest.approx(0.0370, abs=5e-5)
    assert k.electron_wavelength(300) == pytest.approx(0.0197, abs=5e-5)
    assert k.electron_wavelength(20) == pytest.approx(0.0859, abs=5e-5)


def test_bragg_angle_of_silicon_220_at_100_kev():
    # d = 1.920 angstrom, lambda = 0.0370 angstrom: theta = lambda / (2 d) = 9.64 mrad
    assert k.bragg_angle((2, 2, 0), 5.431, 100) * 1e3 == pytest.approx(9.64, abs=0.01)


@pytest.mark.parametrize(
    ("crystal", "forbidden"), [(k.NICKEL, (1, 0, 0)), (k.NICKEL, (1, 1, 0)), (k.IRON, (1, 0, 0)), (k.IRON, (1, 1, 1))]
)
def test_forbidden_reflections_have_no_structure_factor(crystal, forbidden):
    assert k.structure_factor(forbidden, crystal) == 0


@pytest.mark.parametrize("crystal", [k.NICKEL, k.IRON], ids=["fcc", "bcc"])
def test_allowed_reflections_weaken_with_the_angle(crystal):
    factors = [k.structure_factor(hkl, crystal) for hkl in crystal.families]
    assert min(factors) > 0
    assert factors == sorted(factors, reverse=True)


def test_number_of_planes_in_a_family():
    sizes = {(1, 1, 1): 4, (2, 0, 0): 3, (2, 2, 0): 6, (3, 1, 1): 12, (2, 1, 1): 12, (3, 1, 0): 12}
    assert {hkl: len(k.equivalent_planes(hkl)) for hkl in sizes} == sizes


def test_band_is_bright_inside_dark_just_outside_and_ends():
    bragg = 0.02
    profile = k.band_profile(np.array([0.0, 0.9, 1.2, 12]) * bragg, bragg)
    assert profile[0] > 0.9
    assert profile[1] > profile[0]
    assert profile[2] < 0
    assert abs(profile[3]) < 0.01


def test_projection_centre_sees_the_detector_normal():
    # a pixel centre exactly at the projection centre: column 12.5 of 25, row 5.5 of 25
    detector = k.Detector((25, 25), (0.5, 0.22, 0.5))
    ray = k.detector_rays(detector)[5, 12]
    # the specimen's normal, tilted by 70 degrees, makes 20 degrees with the detector's
    assert np.linalg.norm(ray) == pytest.approx(1)
    assert np.rad2deg(np.arccos(ray[2])) == pytest.approx(20, abs=1e-3)


def test_gnomonic_angle_of_a_neighbouring_pixel():
    detector = k.Detector((25, 25), (0.5, 0.22, 0.5))
    rays = k.detector_rays(detector)
    a, b = rays[5, 12], rays[5, 17]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert np.tan(np.arccos(cosine)) == pytest.approx(5 / 25 / 0.5, rel=1e-5)


def test_band_lies_where_the_gnomonic_projection_puts_it():
    # identity orientation: (100) is the plane x = 0, so its band is the column of the projection centre
    detector = k.Detector((101, 101), (0.4, 0.22, 0.5))
    only = k.Crystal("only_200", 3.56, "fcc", 28, ((2, 0, 0),))
    pattern = k.kikuchi_patterns([1, 0, 0, 0], crystals=[only], detector=detector)
    column = 0.4 * 101 - 0.5
    weights = np.clip(pattern[60:, 20:60], 0, None).sum(axis=0)  # below the other two bands
    assert np.average(np.arange(20, 60), weights=weights) == pytest.approx(column, abs=0.3)


def test_band_has_the_width_of_twice_the_bragg_angle():
    detector = k.Detector((1, 4001), (0.5, 0.5, 2000.0))  # one row, fine pixels: 0.5 mrad
    theta = k.bragg_angle((2, 0, 0), k.NICKEL.a)
    angle = np.arctan(k.detector_rays(detector)[0, :, 0])
    profile = k.band_profile(angle, theta)
    inside = profile > 0.5
    assert np.ptp(angle[inside]) == pytest.approx(2 * theta, rel=0.02)


def test_table_agrees_with_the_sum_of_bands():
    rng = np.random.default_rng(0)
    detector = k.Detector((40, 40))
    orientation = k.random_orientations(1, rng)[0]
    pattern = k.kikuchi_patterns(orientation, 1, detector=detector)
    rays = k.detector_rays(detector) @ k.rotation_matrices(orientation).T
    direct = k.kikuchi_sphere(rays, k.IRON, blur=detector.pixel_angle * k.PIXEL_BLUR)
    assert np.corrcoef(pattern.ravel(), direct.ravel())[0, 1] > 0.9999


def _cubic_rotations() -> list[np.ndarray]:
    """The 24 proper rotations of a cube: signed permutation matrices of determinant 1."""
    signed = [np.eye(3)[list(p)] * s for p in permutations(range(3)) for s in product((1, -1), repeat=3)]
    return [matrix for matrix in signed if np.linalg.det(matrix) > 0]


def test_cubic_symmetry_gives_the_same_pattern():
    from scipy.spatial.transform import Rotation

    symmetries = np.array(_cubic_rotations())
    assert len(symmetries) == 24
    turns = np.roll(Rotation.from_matrix(symmetries).as_quat(), 1, axis=-1)  # scalar first
    q = k.random_orientations(1, np.random.default_rng(3))[0]
    for phase in (0, 1):
        patterns = k.kikuchi_patterns(k.multiply(turns, q), phase)
        np.testing.assert_allclose(patterns, np.broadcast_to(patterns[:1], patterns.shape), atol=2e-3)


def test_quaternions_compose_like_matrices():
    p, q = k.random_orientations(2, np.random.default_rng(1))
    product_of_matrices = k.rotation_matrices(p) @ k.rotation_matrices(q)
    np.testing.assert_allclose(k.rotation_matrices(k.multiply(p, q)), product_of_matrices, atol=1e-12)


def test_rotation_turns_by_the_angle():
    turn = k.rotation_matrices(k.rotation([0, 0, 1], np.pi / 2))
    np.testing.assert_allclose(turn @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_random_orientations_are_uniform():
    q = k.random_orientations(20_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1)
    np.testing.assert_allclose(q.T @ q / len(q), np.eye(4) / 4, atol=0.01)


def test_one_pattern_equals_the_same_pattern_among_many():
    q = k.random_orientations(5, np.random.default_rng(2))
    many = k.kikuchi_patterns(q, [0, 1, 0, 1, 1])
    np.testing.assert_array_equal(k.kikuchi_patterns(q[3], 1), many[3])
    assert many.dtype == np.float32
    assert many.shape == (5, 60, 60)


def test_specimen_normal_meets_the_detector_above_the_projection_centre():
    # the detector is vertical and the specimen tilted by 70 degrees: its normal rises by 20 degrees
    detector = k.Detector((200, 200))
    rays = k.detector_rays(detector)
    cosine = rays[..., 2] / np.linalg.norm(rays, axis=-1)
    row, column = np.unravel_index(cosine.argmax(), cosine.shape)
    assert row + 0.5 == pytest.approx((0.22 - 0.5 * np.tan(np.deg2rad(20))) * 200, abs=1)
    assert column + 0.5 == pytest.approx(0.42 * 200, abs=1)


@pytest.mark.parametrize("seed", range(4))
def test_every_band_follows_the_trace_of_its_plane(seed):
    from scipy.spatial.transform import Rotation

    detector = k.Detector((120, 120))
    cubes = k.Crystal("only_200", 3.56, "fcc", 28, ((2, 0, 0),))
    turn = Rotation.random(rng=seed)
    pattern = k.kikuchi_patterns(np.roll(turn.as_quat(), 1), crystals=[cubes], detector=detector)
    rays = k.detector_rays(detector)
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    normals = turn.inv().apply(np.eye(3))  # of the three cube planes, in the specimen frame
    angle = np.abs(np.arcsin(rays @ normals.T)).min(axis=-1)
    theta = k.bragg_angle((2, 0, 0), 3.56)
    assert pattern[angle < 0.8 * theta].min() > pattern[angle > 1.6 * theta].max()
