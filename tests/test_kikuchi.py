"""The physics of the synthetic patterns, against textbook values and geometry done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vaearr.testing import kikuchi as k


@pytest.mark.parametrize(("energy", "wavelength"), [(20, 0.0859), (100, 0.0370), (300, 0.0197)])
def test_wavelength_is_the_textbook_value(energy: float, wavelength: float) -> None:
    """Williams and Carter, Transmission Electron Microscopy, table 1.2, by Bragg's law."""
    assert 2 * np.sin(k.bragg_angle((1, 0, 0), 1.0, energy)) == pytest.approx(wavelength, abs=5e-5)


def test_gnomonic_geometry() -> None:
    """A pixel centre at the projection centre sees the detector's normal, 20 degrees off the
    specimen's.
    """
    rays = k.detector_rays(k.Detector((25, 25), (0.5, 0.22, 0.5)))
    a, b = rays[5, 12], rays[5, 17]
    assert np.linalg.norm(a) == pytest.approx(1)
    assert np.rad2deg(np.arccos(a[2])) == pytest.approx(20, abs=1e-3)
    assert np.tan(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))) == pytest.approx(
        5 / 25 / 0.5, rel=1e-5
    )


def test_a_band_is_twice_the_bragg_angle_wide_and_follows_its_plane() -> None:
    theta = k.bragg_angle((2, 0, 0), k.NICKEL.a)
    angle = np.linspace(-0.5, 0.5, 20001)
    inside = k.band_profile(angle, theta) > 0.5
    assert np.ptp(angle[inside]) == pytest.approx(2 * theta, rel=0.02)
    cubes = k.Crystal("only_200", k.NICKEL.a, 28, ((2, 0, 0),))
    v = Rotation.random(5000, rng=0).apply([0, 0, 1])
    nearest = np.abs(np.arcsin(v)).min(axis=1)  # the planes are x, y and z = 0
    bright = k.kikuchi_sphere(v, cubes)
    assert bright[nearest < 0.8 * theta].min() > bright[nearest > 1.6 * theta].max()


def test_patterns_are_the_sphere_seen_by_the_detector_with_cubic_symmetry() -> None:
    detector, turn = k.Detector((40, 40)), Rotation.random(rng=3)
    symmetries = Rotation.create_group("O")
    assert len(symmetries) == 24
    for phase, crystal in enumerate(k.CRYSTALS):
        patterns = k.kikuchi_patterns(symmetries * turn, phase, detector=detector)
        np.testing.assert_allclose(
            patterns, np.broadcast_to(patterns[:1], patterns.shape), atol=2e-3
        )
        seen = turn.apply(
            k.detector_rays(detector).reshape(-1, 3)
        )  # specimen vectors as crystal vectors
        direct = k.kikuchi_sphere(seen, crystal, blur=detector.pixel_angle * k.PIXEL_BLUR)
        assert np.corrcoef(patterns[0].ravel(), direct)[0, 1] > 0.9999
