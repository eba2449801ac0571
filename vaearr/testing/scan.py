"""A synthetic EBSD scan from crystal geometry, with noise, side maps and the known truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.testing.kikuchi import CRYSTALS, ENERGY, TILT, Detector, Floats, kikuchi_patterns

COMPOSITION = {  # wt% in the fcc and in the bcc phase
    "Fe": (17.0, 88.5),
    "Ni": (58.5, 3.5),
    "Cr": (20.5, 4.5),
    "O": (0.6, 0.7),
    "C": (0.7, 0.9),
    "Si": (1.0, 0.9),
    "Mn": (1.7, 1.0),
}
DIRT = {"O": 3.0, "C": 4.0}  # additional wt% in the middle of the scratch
FCC, BCC = 0, 1
BCC_SHARE = 0.35  # of the grains
GRADIENT = 0.1  # mean orientation gradient in a grain, degrees per scan point
NOT_INDEXED = 0.01  # share of scan points, the worst ones
JITTER = 0.05  # orientation noise per scan point, degrees
MIXING = 0.45  # standard deviation of the interaction volume, scan points
CONTRAST = 0.115  # relative strength of the bands
READ_NOISE = 3.0  # standard deviation, electrons
FILE_CHUNK = 64  # patterns in a chunk of the HDF5 file
COUNTS_PER_PERCENT = 60.0  # X-ray counts per wt%
XRAY_BLUR = 0.9  # standard deviation of the X-ray volume, scan points
COLUMNS = {n.BC: "band_contrast", n.PHASE: "phase_id"}  # of the files of maps
TRUTH = {  # variables of the truth and their attributes
    "true_grain": {"long_name": "true grain number"},
    "true_phase": {"long_name": "true phase"},
    "true_quality": {"long_name": "diffraction contrast", "units": "1"},
    "true_scratch": {"long_name": "depth of the scratch", "units": "1"},
    "own_grain_fraction": {"long_name": "signal from the own grain", "units": "1"},
}


def synthetic_scan(
    nx: int = 48,
    ny: int = 36,
    *,
    pattern_shape: tuple[int, int] = (60, 60),
    n_grains: int = 24,
    n_twins: int = 2,
    seed: int = 0,
    step: float = 0.25,
    scratch: bool = True,
    noise: bool = True,
    dose: float = 420.0,
) -> xr.Dataset:
    """Simulate an EBSD scan with known truth.

    A pattern is `brightness * background * (1 + CONTRAST * quality * signal)` times the dose, where
    the Kikuchi signal (variance 1) is mixed from neighbouring scan points; Poisson and read-out
    noise follow. The same arguments give the same Dataset; the microstructure does not depend on
    `pattern_shape` or the noise. Beyond the result, a few rows of scan points are held in memory.

    Parameters
    ----------
    nx, ny : int
        Columns and rows of the scan.
    pattern_shape : tuple of int
        Detector rows and columns.
    n_grains, n_twins : int
        Number of grains and of twin lamellae (fewer if grains are too small).
    seed : int
        Seed of all random numbers.
    step : float
        Distance of scan points in um.
    scratch : bool
        Whether a scratch with poor patterns crosses the field.
    noise : bool
        False gives the expected patterns.
    dose : float
        Electrons per detector pixel where the background is brightest.

    Returns
    -------
    xarray.Dataset
        `patterns` (y, x, dy, dx) uint8, `BC` and `phase` (y, x), `elements` (element, y, x), and
        the truth (y, x): `true_grain`, `true_phase`, `true_quality`, `true_scratch`,
        `own_grain_fraction`.

    Raises
    ------
    UsageError
        For sizes below 1, and for a step or dose that is not positive.
    """
    if min(nx, ny, n_grains, *pattern_shape) < 1:
        raise UsageError("nx, ny, n_grains and both sizes of pattern_shape must be at least 1.")
    if min(step, dose) <= 0:
        raise UsageError(f"step={step} and dose={dose} must be positive.")
    detector = Detector((pattern_shape[0], pattern_shape[1]))
    seeds = np.random.SeedSequence(seed).spawn(3)
    structure_rng, pattern_rng, map_rng = map(np.random.default_rng, seeds)
    truth = microstructure(
        ny, nx, n_grains=n_grains, n_twins=n_twins, scratch=scratch, rng=structure_rng
    )
    patterns = _patterns(truth, detector, dose, pattern_rng if noise else None)
    variable = (("y", "x", "dy", "dx"), patterns, _pattern_attrs(detector))
    data = {n.PATTERNS: variable, **side_maps(truth, image_quality(patterns), map_rng)}
    coords = scan_coords({"y": ny, "x": nx}, step, pattern_shape)
    coords[n.ELEMENT] = list(COMPOSITION)
    return xr.Dataset(data, coords, {"title": "synthetic EBSD scan"})


def write_scan_files(ds: xr.Dataset, folder: str | Path) -> dict[str, Path]:
    """Write a scan over (y, x) as the files of an instrument: patterns in HDF5, maps in CSV.

    Parameters
    ----------
    ds : xarray.Dataset
        Any of `patterns`, `BC`, `elements` and `phase`; scan points where `present` is false are
        omitted.
    folder : str or Path
        Created if it does not exist.

    Returns
    -------
    dict
        Path of each file by the variable that it holds: scan.h5 (`/images` (N, 1, dy, dx) and
        `/coords` (N, 2), [x, y] as step numbers), bandcontrast.csv, elements.csv, phases.csv.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    is_present = np.ones((ds.sizes["y"], ds.sizes["x"]), bool)
    if n.PRESENT in ds:
        is_present = ds[n.PRESENT].transpose("y", "x").values
    y, x = np.nonzero(is_present)
    points = xr.Dataset({"x": ("point", x), "y": ("point", y)})
    paths = {}
    if n.PATTERNS in ds:
        paths[n.PATTERNS] = folder / "scan.h5"
        _write_patterns(ds[n.PATTERNS], points, paths[n.PATTERNS])
    tables = {n.BC: "bandcontrast", n.ELEMENTS: "elements", n.PHASE: "phases"}
    for name, stem in tables.items():
        if name in ds:
            paths[name] = folder / f"{stem}.csv"
            _write_table(ds[name], points, paths[name])
    return paths


def _write_patterns(patterns: xr.DataArray, points: xr.Dataset, path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["coords"] = np.stack([points["x"], points["y"]], axis=1).astype(np.int32)
        n_points = points.sizes["point"]
        shape = (n_points, 1, *patterns.shape[2:])
        chunks = (min(FILE_CHUNK, n_points), *shape[1:])
        images = file.create_dataset(
            "images", shape, patterns.dtype, chunks=chunks, compression="gzip"
        )
        for start in range(0, n_points, FILE_CHUNK):
            rows = slice(start, start + FILE_CHUNK)
            block = patterns.isel(points.isel(point=rows))
            images[rows, 0] = block.transpose("point", "dy", "dx").values


def _write_table(maps: xr.DataArray, points: xr.Dataset, path: Path) -> None:
    """Write the values of a map, or of the elements, at scan points as CSV."""
    values = maps.isel(points).reset_coords(drop=True)
    table = points.to_dataframe()
    if n.ELEMENT in maps.dims:
        for element in map(str, values[n.ELEMENT].values):
            table[element] = values.sel({n.ELEMENT: element}).values
    else:
        table[COLUMNS[str(maps.name)]] = values.values
    table.to_csv(path, index=False, float_format="%.3f")


def side_maps(
    truth: Mapping[str, Any], quality: Floats, rng: np.random.Generator
) -> dict[str, tuple[Any, ...]]:
    """Band contrast, elements, phases and the truth, as variables over y and x."""
    navigation = ("y", "x")
    phase_attrs = {
        **n.ATTRS[n.PHASE],
        "flag_values": [n.PHASE_UNKNOWN, FCC, BCC],
        "flag_meanings": " ".join(["not_indexed", *(crystal.name for crystal in CRYSTALS)]),
    }
    element_attrs = {**n.ATTRS[n.ELEMENTS], "units": "wt%"}
    maps: dict[str, tuple[Any, ...]] = {
        n.BC: (navigation, _band_contrast(quality), n.ATTRS[n.BC]),
        n.ELEMENTS: ((n.ELEMENT, *navigation), _elements(truth, rng), element_attrs),
        n.PHASE: (navigation, _indexed_phase(truth, rng), phase_attrs),
    }
    for name, attrs in TRUTH.items():
        if name == "true_phase":
            attrs = phase_attrs | attrs
        elif name == "true_grain":  # numbers of classes
            attrs = attrs | {"flag_values": np.unique(truth[name]).tolist()}
        maps[name] = (navigation, truth[name], attrs)
    return maps


def scan_coords(
    sizes: Mapping[str, int], step: float, pattern_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Coordinates of a scan: positions in um, step numbers, detector rows and columns."""
    coords: dict[str, Any] = {}
    for dim, size in sizes.items():
        index = np.arange(size, dtype=np.int64)
        coords[dim] = (dim, index * step, {**n.ATTRS[dim], "units": "um", "step": step})
        coords[f"{dim}_index"] = (dim, index, {"long_name": f"step number along {dim}"})
    for dim, size in zip(("dy", "dx"), pattern_shape, strict=False):
        coords[dim] = (dim, np.arange(size, dtype=np.int64), n.ATTRS[dim])
    return coords


def image_quality(patterns: NDArray[Any]) -> NDArray[np.float32]:
    """FFT image quality of patterns (..., dy, dx) divided by their mean: 1 is sharp, 0 is noise.

    Q = 1 - J / J_flat, where J is the mean of the squared spatial frequency, weighted with the
    modulus of the Fourier transform of a pattern (mean removed, Hann window), and J_flat its value
    where all frequencies are equally strong; after Krieger Lassen, Automated determination of
    crystal orientations from electron backscattering patterns (1994).
    """
    rows, columns = patterns.shape[-2:]
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(columns + 2)[1:-1]).astype(np.float32)
    frequency = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.fftfreq(columns) ** 2
    flat = patterns.reshape(-1, rows, columns)
    static = np.maximum(flat.mean(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
    moments = np.empty(len(flat))
    for i, pattern in enumerate(flat):
        flattened = pattern / static
        modulus = np.abs(np.fft.fft2((flattened - flattened.mean()) * window))
        moments[i] = (modulus * frequency).sum() / max(modulus.sum(), 1e-12)
    quality = 1 - moments / max(frequency.mean(), 1e-12)
    return quality.reshape(patterns.shape[:-2]).astype(np.float32)


def _pattern_attrs(detector: Detector) -> dict[str, Any]:
    return {
        **n.ATTRS[n.PATTERNS],
        n.NAVIGATION_DIMS: ["y", "x"],
        n.SIGNAL_DIMS: ["dy", "dx"],
        "projection_centre": list(detector.projection_centre),
        "projection_centre_convention": "Bruker",
        "sample_tilt": TILT,
        "beam_energy": ENERGY,
    }


def _patterns(
    truth: Mapping[str, Any], detector: Detector, dose: float, rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    """Patterns (y, x, dy, dx) as recorded by the camera; expected values without `rng`."""
    lit = illumination(detector.shape, dose)
    quality = truth["true_quality"][..., None, None]
    brightness = truth["brightness"][..., None, None]
    gain = np.float32(175 / (dose * brightness.max()))
    out = np.empty((*truth["true_grain"].shape, *detector.shape), dtype=np.uint8)
    for y, signal in enumerate(mixed_signals(truth, detector)):
        bands = 1 + np.float32(CONTRAST) * quality[y] * signal
        electrons = np.maximum(brightness[y] * lit * bands, 0)
        if rng is not None:
            counted = rng.poisson(electrons)
            electrons = counted + READ_NOISE * rng.standard_normal(bands.shape, np.float32)
        out[y] = np.clip(np.rint(electrons * gain), 0, 255)
    return out


def illumination(shape: tuple[int, int], dose: float) -> Floats:
    """Mean electrons per pixel of a detector: a broad hump above the middle, with darker corners."""
    v, u = np.meshgrid(*[(np.arange(size) + 0.5) / size for size in shape], indexing="ij")
    hump = np.exp(-0.5 * (((u - 0.47) / 0.42) ** 2 + ((v - 0.38) / 0.45) ** 2))
    return np.asarray(dose * (0.3 + 0.7 * hump), np.float32)


def mixed_signals(truth: Mapping[str, Any], detector: Detector) -> Iterator[Floats]:
    """Kikuchi signal of each row of scan points (x, dy, dx), mixed with that of neighbours."""
    from scipy.ndimage import correlate1d

    share = _mixing()
    ny, nx = truth["true_grain"].shape

    def row(y: int) -> Floats:
        orientations = truth["orientation"][y * nx : (y + 1) * nx]
        signal = kikuchi_patterns(orientations, truth["true_phase"][y], detector=detector)
        return np.asarray(correlate1d(signal, share, axis=0, mode="nearest"))

    above = here = row(0)
    for y in range(ny):
        below = row(y + 1) if y + 1 < ny else here
        yield share[0] * above + share[1] * here + share[2] * below
        above, here = here, below


def _mixing() -> Floats:
    """Shares of the previous, the same and the next scan point along one axis; they sum to 1."""
    weights = np.exp(-0.5 * (np.array([-1.0, 0.0, 1.0]) / MIXING) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)


def _band_contrast(quality: Floats) -> NDArray[np.float32]:
    """Image quality in whole numbers from 0 to 255, between its 0.2 and 99.8 % quantiles."""
    low, high = np.quantile(quality, [0.002, 0.998])
    return np.rint(255 * np.clip((quality - low) / max(high - low, 1e-12), 0, 1)).astype(np.float32)


def _elements(truth: Mapping[str, Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """Element content (element, y, x) in wt%: that of the phase, blurred, with counting noise."""
    from scipy.ndimage import gaussian_filter

    scratch = truth["true_scratch"].astype(float)
    maps = []
    for name, (fcc, bcc) in COMPOSITION.items():
        of_phase = np.where(truth["true_phase"] == FCC, fcc, bcc)
        maps.append(of_phase + DIRT.get(name, 0.0) * scratch)
    content = gaussian_filter(np.array(maps), (0, XRAY_BLUR, XRAY_BLUR), mode="nearest")
    counts = rng.poisson(content * COUNTS_PER_PERCENT) + 1e-3
    return np.asarray(100 * counts / counts.sum(axis=0), dtype=np.float32)


def _indexed_phase(truth: Mapping[str, Any], rng: np.random.Generator) -> NDArray[np.int16]:
    """The phase that indexing would find: the true one, -1 where patterns are poor or mixed."""
    phase: NDArray[np.int16] = truth["true_phase"].copy()
    noise = 0.1 * rng.standard_normal(phase.shape)
    worst = np.argsort(truth["true_quality"] * truth["own_grain_fraction"] + noise, axis=None)
    n_not_indexed = int(np.ceil(NOT_INDEXED * phase.size))
    phase.reshape(-1)[worst[:n_not_indexed]] = n.PHASE_UNKNOWN
    return phase


# ---- a synthetic polycrystal ----


def microstructure(
    ny: int, nx: int, *, n_grains: int, n_twins: int, scratch: bool, rng: np.random.Generator
) -> dict[str, Any]:
    """Truth of a scan: the maps of `TRUTH`, `brightness`, and `orientation` (one Rotation).

    Voronoi grains with wavy boundaries, two clustered phases, `n_twins` twin lamellae in fcc
    grains: turned by 60 degrees about a <111> of the crystal (Sigma 3).
    """
    from scipy.spatial.transform import Rotation

    y, x = np.meshgrid(np.arange(ny, dtype=float), np.arange(nx, dtype=float), indexing="ij")
    grain, centres = _grains(y, x, n_grains, rng)
    phases = _grain_phases(centres, rng)
    orientations = Rotation.from_quat(_random_quaternions(n_grains, rng))
    for _ in range(n_twins):
        counts = np.bincount(grain.ravel(), minlength=len(phases))
        parents = np.flatnonzero((phases == FCC) & (counts > 30))
        if not len(parents):
            continue
        parent = rng.choice(parents)
        is_lamella = _lamella(grain == parent, y, x, rng)
        grain = np.where(is_lamella, len(phases), grain)
        axis = rng.choice([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]])
        turn = Rotation.from_rotvec(np.deg2rad(60) * axis / np.sqrt(3))
        orientations = Rotation.concatenate([orientations, turn * orientations[parent]])
        phases = np.append(phases, FCC)
    phase = phases[grain].astype(np.int16)
    depth = _scratch(y, x, rng) if scratch else np.zeros((ny, nx))
    waves = _waves(y, x, rng, wavelength=0.6 * max(ny, nx))
    quality = rng.uniform(0.8, 1.0, len(phases))[grain] * (1 + 0.06 * waves) * (1 - 0.85 * depth)
    brightness = 1 + 0.06 * _waves(y, x, rng, wavelength=1.2 * max(ny, nx))
    # the heavier phase backscatters more electrons
    brightness = brightness * np.where(phase == FCC, 1.02, 0.98)
    return {
        "true_grain": grain.astype(np.int32),
        "true_phase": phase,
        "true_quality": np.clip(quality, 0, 1).astype(np.float32),
        "true_scratch": depth.astype(np.float32),
        "own_grain_fraction": _own_fraction(grain),
        "brightness": brightness.astype(np.float32),
        "orientation": _bent(grain, orientations, y, x, rng),
    }


def _lamella(
    is_parent: NDArray[np.bool_], y: Floats, x: Floats, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Scan points of a straight band through the middle of a grain."""
    angle = rng.uniform(0, np.pi)
    offset_y = (y - y[is_parent].mean()) * np.cos(angle)
    offset_x = (x - x[is_parent].mean()) * np.sin(angle)
    is_near = np.abs(offset_y + offset_x) < 0.16 * np.sqrt(is_parent.sum())
    return np.asarray(is_parent & is_near)


def _own_fraction(grain: NDArray[np.integer]) -> NDArray[np.float32]:
    """Share of the mixed signal that comes from the grain of the scan point itself."""
    ny, nx = grain.shape
    padded = np.pad(grain, 1, mode="edge")
    share = _mixing()
    fraction = np.zeros(grain.shape, np.float32)
    for i in range(3):
        for j in range(3):
            is_same = padded[i : i + ny, j : j + nx] == grain
            fraction += share[i] * share[j] * is_same
    return fraction


def _random_quaternions(count: int, rng: np.random.Generator) -> Floats:
    """Uniform unit quaternions (count, 4), scalar last; Shoemake, Graphics Gems III (1992) 124."""
    u = rng.random(count)
    a, b = 2 * np.pi * rng.random((2, count))
    near, far = np.sqrt(1 - u), np.sqrt(u)
    return np.stack([near * np.cos(a), far * np.sin(b), far * np.cos(b), near * np.sin(a)], axis=-1)


def _waves(y: Floats, x: Floats, rng: np.random.Generator, *, wavelength: float) -> Floats:
    """A smooth random field: five plane waves of about the given wavelength, mean near 0."""
    total = np.zeros_like(y)
    for _ in range(5):
        direction, phase = rng.uniform(0, 2 * np.pi, 2)
        k = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.6))
        total += np.sin(k * (np.cos(direction) * x + np.sin(direction) * y) + phase)
    return total / np.sqrt(5)


def _grains(
    y: Floats, x: Floats, n_grains: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats]:
    """Grain numbers, and the centres (n, 2) of the grains as shares of the field."""
    from scipy.spatial import cKDTree

    ny, nx = y.shape
    size = np.sqrt(ny * nx / n_grains)
    candidates = (rng.random((n_grains * 8, 2)) * (ny, nx)).reshape(n_grains, 8, 2)
    centres = candidates[0, :1]
    for group in candidates[1:]:  # Mitchell's best candidate: grains of similar size
        distance = np.linalg.norm(group[:, None] - centres[None], axis=-1).min(axis=1)
        centres = np.vstack([centres, group[distance.argmax()]])
    points = [axis + 0.12 * size * _waves(y, x, rng, wavelength=0.8 * size) for axis in (y, x)]
    return cKDTree(centres).query(np.stack(points, axis=-1))[1], centres / (ny, nx)


def _grain_phases(centres: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Phase of each grain, by a smooth random field, so that bcc grains cluster."""
    field = _waves(centres[:, 0], centres[:, 1], rng, wavelength=0.6)
    n_bcc = min(len(centres) - 1, max(1, round(BCC_SHARE * len(centres))))
    phases = np.full(len(centres), FCC)
    phases[np.argsort(field)[:n_bcc]] = BCC
    return phases


def _bent(
    grain: NDArray[np.int64], orientations: Any, y: Floats, x: Floats, rng: np.random.Generator
) -> Any:
    """Orientation of each scan point: that of its grain with a linear gradient and jitter."""
    from scipy.spatial.transform import Rotation

    n_grains = len(orientations)
    members = grain.ravel()
    counts = np.maximum(np.bincount(members, minlength=n_grains), 1)
    offsets = []
    for position in (y, x):
        centres = np.bincount(members, position.ravel(), n_grains) / counts
        offsets.append(position - centres[grain])
    offset = np.stack(offsets, axis=-1)
    direction = rng.standard_normal((n_grains, 2))
    axis = rng.standard_normal((n_grains, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    axis *= (rng.gamma(4, GRADIENT / 4, n_grains) / np.linalg.norm(axis, axis=1))[:, None]
    bend = (offset * direction[grain]).sum(-1)[..., None] * axis[grain]
    vector = np.deg2rad(bend + JITTER * rng.standard_normal(bend.shape))
    return Rotation.from_rotvec(vector.reshape(-1, 3)) * orientations[members]


def _scratch(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
    """A slightly bent scratch from edge to edge, 1 in its middle and 0 away from it."""
    ny, nx = y.shape
    angle = rng.uniform(0.15, 0.6) * rng.choice([-1, 1])
    bend = 0.03 * ny * np.sin(2 * np.pi * x / nx + rng.uniform(0, 2 * np.pi))
    height = y - rng.uniform(0.35, 0.65) * ny - bend
    distance = height * np.cos(angle) - (x - nx / 2) * np.sin(angle)
    width = max(0.8, 0.02 * min(ny, nx))
    return 1 / (1 + (np.abs(distance) / (1.4 * width)) ** 6)
