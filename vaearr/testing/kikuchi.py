"""Kikuchi patterns from crystal geometry: bands of Bragg width, gnomonic projection, no noise.

Frames. A *ray* is the direction from the illuminated point to a detector pixel, given in the
specimen frame (x along the tilt axis, z along the surface normal). An *orientation* is a rotation
that turns specimen vectors into crystal vectors. Detector columns run along the tilt axis, rows run
downwards; the projection centre follows Bruker: x from the left in detector widths, y from the top
in detector heights, distance in detector heights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
Miller = tuple[int, int, int]

TILT = 70.0  # of the specimen, degrees
ENERGY = 20.0  # of the beam, keV
TABLE = 640  # side of the table of intensities over one cube face
PIXEL_BLUR = 0.36  # standard deviation of the detector blur, pixels
SATURATION = 1.3  # in units of the strongest band
EDGE = 0.25  # width of a band's edge in Bragg angles


@dataclass(frozen=True)
class Crystal:
    """A cubic element: lattice parameter in angstrom, atomic number, families of planes that make
    bands.
    """

    name: str
    a: float
    z: int
    families: tuple[Miller, ...]


NICKEL = Crystal("ni_fcc", 3.56, 28, ((1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1)))
IRON = Crystal("fe_bcc", 2.87, 26, ((1, 1, 0), (2, 0, 0), (2, 1, 1), (3, 1, 0)))
CRYSTALS = (NICKEL, IRON)


@dataclass(frozen=True)
class Detector:
    """Pixels of the detector and its projection centre (Bruker)."""

    shape: tuple[int, int] = (60, 60)
    projection_centre: tuple[float, float, float] = (0.42, 0.22, 0.5)

    @property
    def pixel_angle(self) -> float:
        """Angle in radians that a pixel covers at the projection centre."""
        return 1.0 / (self.shape[0] * self.projection_centre[2])


def bragg_angle(hkl: Miller, a: float, energy: float = ENERGY) -> float:
    """Bragg angle in radians of a reflection of a cubic crystal: sin(theta) = lambda sqrt(h^2 + k^2
    + l^2) / (2 a).

    a in angstrom, energy of the beam in keV. The relativistic electron wavelength is lambda = h /
    sqrt(2 m e V (1 + e V / (2 m c^2))), 0.0859 angstrom at 20 keV; Williams and Carter,
    Transmission Electron Microscopy (2009), eq. 1.6.
    """
    from scipy.constants import c, e, h, m_e

    joule = energy * 1e3 * e
    wavelength = h / np.sqrt(2 * m_e * joule * (1 + joule / (2 * m_e * c**2))) * 1e10
    return float(np.arcsin(wavelength * np.linalg.norm(hkl) / (2 * a)))


def scattering_amplitude(hkl: Miller, crystal: Crystal) -> float:
    """Scattering amplitude of a screened (Wentzel) atom for an allowed reflection, relative units.

    f ~ Z / (q^2 + q0^2), q = 1/d, q0 = Z^(1/3) / (2 pi a_H); Reimer and Kohl, Transmission Electron
    Microscopy (2008).
    """
    q = np.linalg.norm(hkl) / crystal.a
    q0 = crystal.z ** (1 / 3) / (2 * np.pi * 0.529)
    return float(crystal.z / (q**2 + q0**2))


def equivalent_planes(hkl: Miller) -> NDArray[np.int64]:
    """Planes of the family {hkl} of a cubic crystal, one of each pair +-hkl: 4 of {111}, 12 of
    {311}.
    """
    planes = np.array(list(product(permutations(hkl), product((1, -1), repeat=3)))).prod(1)
    planes = np.unique(planes, axis=0)
    return planes[len(planes) // 2 :]


def band_profile(angle: ArrayLike, bragg: float, *, blur: float = 0.0) -> Floats:
    """Intensity across a band: bright within the Bragg angle, darker just outside, 0 far away.

    `angle` is the angle between ray and plane, `blur` the standard deviation of a Gaussian
    (radians) that stands for the pixel size. An empirical shape in the manner of two-beam theory
    with anomalous absorption (Reimer, Scanning Electron Microscopy, 1998): a step w / sqrt(1 + w^2)
    in the deviation w from the Bragg angle, and a dispersion term that brightens the edge inside
    and darkens it outside. Measured and simulated profiles: Winkelmann et al., Ultramicroscopy 107
    (2007) 414.
    """
    from scipy.ndimage import gaussian_filter1d

    spacing = bragg / 40
    reach = np.ceil((12 * bragg + 5 * blur) / spacing)
    grid = np.arange(-reach, reach + 1) * spacing
    w = (np.abs(grid) - bragg) / (EDGE * bragg)
    profile = 0.5 * (1 - w / np.sqrt(1 + w**2)) - 1.6 * w / (1 + w**2) ** 2
    if blur > 0:
        profile = gaussian_filter1d(profile, blur / spacing)
    return np.interp(np.asarray(angle), grid, profile, left=0.0, right=0.0)


def kikuchi_sphere(directions: ArrayLike, crystal: Crystal, *, blur: float = 0.0) -> Floats:
    """Intensity along crystal directions (..., 3): the sum of all bands, each profile weighted with
    the squared scattering amplitude.

    Where many bands cross the sum saturates, as in many-beam theory, where zone axes are not as
    bright as the two-beam contributions add up to: `sum -> s (1 - exp(-sum / s))`. Not normalised.
    """
    v = np.asarray(directions, dtype=np.float64)
    v = v / np.linalg.norm(v, axis=-1, keepdims=True)
    amplitudes = [scattering_amplitude(hkl, crystal) for hkl in crystal.families]
    total = np.zeros(v.shape[:-1])
    for hkl, amplitude in zip(crystal.families, amplitudes, strict=True):
        weight = (amplitude / max(amplitudes)) ** 2
        theta = bragg_angle(hkl, crystal.a)
        for plane in equivalent_planes(hkl):
            angle = np.arcsin(np.clip(v @ (plane / np.linalg.norm(plane)), -1, 1))
            total += weight * band_profile(angle, theta, blur=blur)
    return SATURATION * (1 - np.exp(-total / SATURATION))


@lru_cache(maxsize=16)
def _face_table(crystal: Crystal, blur: float) -> NDArray[np.float32]:
    """Sphere of a cubic crystal over the cube face (1, u, v), 0 <= u, v <= 1; mean 0 and variance 1
    over the sphere.
    """
    axis = np.linspace(0, 1, TABLE)
    u, v = np.meshgrid(axis, axis, indexing="ij")
    directions = np.stack([np.ones_like(u), u, v], axis=-1)
    values = kikuchi_sphere(directions, crystal, blur=blur)
    area = (1 + u**2 + v**2) ** -1.5  # solid angle of a cell of the face
    mean = np.average(values, weights=area)
    spread = np.sqrt(np.average((values - mean) ** 2, weights=area))
    return ((values - mean) / spread).astype(np.float32)


def detector_rays(detector: Detector) -> Floats:
    """Rays (dy, dx, 3) to the pixel centres in the specimen frame; the gnomonic projection, so not
    of unit length.

    Geometry as in Britton et al., Materials Characterization 117 (2016) 113, with a vertical
    detector and square pixels.
    """
    rows, columns = detector.shape
    x0, y0, distance = detector.projection_centre
    right = ((np.arange(columns) + 0.5) - x0 * columns) / (rows * distance)
    up = (y0 - (np.arange(rows) + 0.5) / rows) / distance
    up, right = np.meshgrid(up, right, indexing="ij")
    tilt = np.deg2rad(TILT)
    along = np.cos(tilt) - up * np.sin(tilt)
    normal = np.sin(tilt) + up * np.cos(tilt)
    return np.stack([right, along, normal], axis=-1)


def kikuchi_patterns(
    orientations: Any, phases: ArrayLike = 0, *, detector: Detector | None = None
) -> Floats:
    """Noise-free Kikuchi signal (n, dy, dx) float32 of n orientations, a
    `scipy.spatial.transform.Rotation`.

    phases: indices into `CRYSTALS`. The signal has mean 0 and variance 1 over all directions. Cubic
    symmetry is exact: directions are folded into the part of the sphere with 0 <= z <= y <= x
    before the table is read.
    """
    from scipy.ndimage import map_coordinates

    detector = detector or Detector()
    rays = detector_rays(detector).reshape(-1, 3).astype(np.float32)
    matrices = orientations.as_matrix().reshape(-1, 3, 3).astype(np.float32)
    components = np.abs(np.einsum("nij,rj->inr", matrices, rays))
    low, middle, high = np.sort(components, axis=0)
    blur = detector.pixel_angle * PIXEL_BLUR
    tables = np.stack([_face_table(crystal, blur) for crystal in CRYSTALS])
    positions = np.empty(components.shape, np.float32)
    positions[0] = np.broadcast_to(np.asarray(phases), len(low))[:, None]
    positions[1] = middle / high * (TABLE - 1)
    positions[2] = low / high * (TABLE - 1)
    signal = map_coordinates(tables, positions, np.float32, order=1)
    return np.asarray(signal.reshape(-1, *detector.shape))
