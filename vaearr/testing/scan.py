"""synthetic_scan(): an EBSD scan from crystal geometry, with noise, side maps and the truth behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.testing.kikuchi import IRON, NICKEL, Detector, kikuchi_patterns
from vaearr.testing.microstructure import Microstructure, microstructure, mixing_weights

CRYSTALS = (NICKEL, IRON)
COMPOSITION = {  # wt% in the fcc and in the bcc phase
    "Fe": (17.0, 88.5),
    "Ni": (58.5, 3.5),
    "Cr": (20.5, 4.5),
    "O": (0.6, 0.7),
    "C": (0.7, 0.9),
    "Si": (1.0, 0.9),
    "Mn": (1.7, 1.0),
}
TRUE_GRAIN, TRUE_PHASE, TRUE_QUALITY = "true_grain", "true_phase", "true_quality"
OWN_GRAIN_FRACTION, TRUE_SCRATCH = "own_grain_fraction", "true_scratch"

READ_NOISE = 3.0  # standard deviation, electrons
COUNTS_PER_PERCENT = 60.0  # X-ray counts per wt%
XRAY_BLUR = 0.9  # standard deviation of the X-ray volume, scan points


def synthetic_scan(
    nx: int = 48,
    ny: int = 36,
    *,
    pattern_shape: tuple[int, int] = (60, 60),
    n_grains: int = 24,
    n_twins: int = 2,
    seed: int = 0,
    step: float = 0.25,
    roi: Literal["disc"] | None = None,
    scratch: bool = True,
    noise: bool = True,
    dose: float = 420.0,
    contrast: float = 0.115,
    not_indexed: float = 0.01,
    detector: Detector | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """An EBSD scan with known truth: (y, x, dy, dx) uint8 patterns, band contrast, elements, phases.

    A pattern is `brightness * background * (1 + contrast * quality * signal)` times the dose, where the Kikuchi signal
    (variance 1) is mixed from neighbouring scan points; Poisson and read-out noise follow. The same arguments give the
    same Dataset; the microstructure does not depend on `pattern_shape` or the noise. Memory beyond the result stays at
    a few rows of scan points.

    Parameters
    ----------
    nx, ny : columns and rows of the scan
    pattern_shape : detector rows and columns
    n_grains, n_twins : grains, and twin lamellae on top (fewer if grains are too small)
    step : distance of scan points in um
    roi : "disc" adds the boolean map `roi`, a disc that leaves out the corners
    scratch : whether a scratch with bad patterns crosses the field
    noise : False gives the expected patterns
    dose : electrons per detector pixel where the background is brightest
    contrast : relative strength of the bands
    not_indexed : share of scan points whose phase is -1, the worst ones first
    detector : geometry; its shape is replaced by `pattern_shape`
    chunks : dask chunks of the result; None keeps plain arrays
    """
    if min(nx, ny, n_grains, *pattern_shape) < 1:
        raise UsageError("nx, ny, n_grains and both sizes of pattern_shape must be at least 1.")
    if not (step > 0 and dose > 0 and contrast >= 0):
        raise UsageError(f"step={step} and dose={dose} must be positive, contrast={contrast} must not be negative.")
    if roi not in (None, "disc"):
        raise UsageError(f"roi={roi!r} is not known; use 'disc' or None.")
    given = detector or Detector()
    detector = Detector((pattern_shape[0], pattern_shape[1]), given.projection_centre, given.sample_tilt, given.energy)
    for_structure, for_patterns, for_maps = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    truth = microstructure(ny, nx, n_grains=n_grains, n_twins=n_twins, scratch=scratch, rng=for_structure)
    rng = for_patterns if noise else None
    patterns = _patterns(truth, detector, dose=dose, contrast=contrast, rng=rng)
    elements = _elements(truth, for_maps)
    data = {
        n.PATTERNS: (("y", "x", "dy", "dx"), patterns, _pattern_attrs(detector)),
        n.BC: (("y", "x"), _band_contrast(patterns), n.ATTRS[n.BC]),
        n.ELEMENTS: (("element", "y", "x"), elements, {**n.ATTRS[n.ELEMENTS], "units": "wt%"}),
        n.PHASE: (("y", "x"), _indexed_phase(truth, not_indexed, for_maps), _phase_attrs()),
        **_truth_maps(truth),
    }
    if roi is not None:
        data[n.ROI] = (("y", "x"), _disc(ny, nx), n.ATTRS[n.ROI])
    ds = xr.Dataset(data, scan_coords({"y": ny, "x": nx}, step, pattern_shape), {"title": "synthetic EBSD scan"})
    ds = ds.assign_coords(element=list(COMPOSITION))
    return ds if chunks is None else ds.chunk(chunks)


def scan_coords(sizes: Mapping[str, int], step: float, pattern_shape: tuple[int, ...]) -> dict[str, Any]:
    """Coordinates of a scan: positions in um with their step numbers beside them, detector rows and columns."""
    coords: dict[str, Any] = {}
    for dim, size in sizes.items():
        index = np.arange(size, dtype=np.int64)
        coords[dim] = (dim, index * step, {**n.ATTRS[dim], "units": "um", "step": step})
        coords[f"{dim}_index"] = (dim, index, {"long_name": f"step number along {dim}"})
    for dim, size in zip(("dy", "dx"), pattern_shape, strict=False):
        coords[dim] = (dim, np.arange(size, dtype=np.int64), n.ATTRS[dim])
    return coords


def background(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Mean intensity over the detector, at most 1: a broad hump above the middle, darker corners."""
    v, u = np.meshgrid(*[(np.arange(size) + 0.5) / size for size in shape], indexing="ij")
    hump = np.exp(-0.5 * (((u - 0.47) / 0.42) ** 2 + ((v - 0.38) / 0.45) ** 2))
    return (0.3 + 0.7 * hump).astype(np.float32)


def image_quality(patterns: NDArray[Any]) -> NDArray[np.float32]:
    """FFT image quality of patterns (..., dy, dx) after a division by their mean: near 1 sharp, near 0 noise.

    Q = 1 - J / J_flat, where J is the mean of the squared spatial frequency, weighted with the modulus of the Fourier
    transform of a pattern (mean removed, Hann window), and J_flat its value where all frequencies are equally strong;
    after Krieger Lassen, Automated determination of crystal orientations from electron backscattering patterns (1994).
    """
    rows, columns = patterns.shape[-2:]
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(columns + 2)[1:-1]).astype(np.float32)
    frequency = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(columns)[None] ** 2
    both = np.full(frequency.shape, 2.0)  # rfft keeps one of each pair of columns
    both[:, 0] = 1.0
    if columns % 2 == 0:
        both[:, -1] = 1.0
    flat = patterns.reshape(-1, rows, columns)
    static = np.maximum(flat.mean(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
    quality = np.empty(len(flat), dtype=np.float32)
    for start in range(0, len(flat), 512):
        block = flat[start : start + 512] / static
        block -= block.mean(axis=(-2, -1), keepdims=True)
        modulus = np.abs(np.fft.rfft2(block * window)) * both
        total = np.maximum(modulus.sum(axis=(-2, -1)), 1e-12)
        quality[start : start + 512] = (modulus * frequency).sum(axis=(-2, -1)) / total
    expected = (frequency * both).sum() / both.sum()
    return (1 - quality / max(expected, 1e-12)).reshape(patterns.shape[:-2]).astype(np.float32)


def _mixed_signals(truth: Microstructure, detector: Detector) -> Iterator[NDArray[np.float32]]:
    """Kikuchi signal of each row of scan points (x, dy, dx), mixed with the neighbours'; holds three rows at a time."""
    side = mixing_weights().astype(np.float32)
    ny = len(truth.grain)

    def row(y: int) -> NDArray[np.float32]:
        y = min(max(y, 0), ny - 1)
        signal = kikuchi_patterns(truth.orientation[y], truth.phase[y], detector=detector, crystals=CRYSTALS)
        mixed = signal * side[1]
        mixed[1:] += side[0] * signal[:-1]
        mixed[:-1] += side[2] * signal[1:]
        mixed[0] += side[0] * signal[0]
        mixed[-1] += side[2] * signal[-1]
        return mixed

    current = row(0)
    previous = current
    for y in range(ny):
        following = row(y + 1) if y + 1 < ny else current
        yield side[0] * previous + side[1] * current + side[2] * following
        previous, current = current, following


def _patterns(
    truth: Microstructure, detector: Detector, *, dose: float, contrast: float, rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    """Patterns (y, x, dy, dx) as the camera gives them; expected values where there is no `rng`."""
    lit = background(detector.shape) * np.float32(dose)
    gain = np.float32(175 / (dose * truth.brightness.max()))
    out = np.empty((*truth.grain.shape, *detector.shape), dtype=np.uint8)
    for y, signal in enumerate(_mixed_signals(truth, detector)):
        relative = 1 + np.float32(contrast) * truth.quality[y][:, None, None] * signal
        expected = np.maximum(truth.brightness[y][:, None, None] * lit * relative, 0)
        if rng is not None:
            electrons = rng.poisson(expected).astype(np.float32)
            expected = electrons + READ_NOISE * rng.standard_normal(expected.shape, dtype=np.float32)
        out[y] = np.clip(np.rint(expected * gain), 0, 255)
    return out


def _band_contrast(patterns: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Image quality in whole numbers from 0 to 255, between its 0.2 and 99.8 % quantiles."""
    quality = image_quality(patterns)
    low, high = np.quantile(quality, [0.002, 0.998])
    return np.rint(255 * np.clip((quality - low) / max(high - low, 1e-12), 0, 1)).astype(np.float32)


def _elements(truth: Microstructure, rng: np.random.Generator) -> NDArray[np.float32]:
    """Element content (element, y, x) in wt% that sums to 100: follows the phase, blurred, with counting noise."""
    from scipy.ndimage import gaussian_filter

    wound = truth.scratch.astype(float)
    content = np.array([np.where(truth.phase == 0, fcc, bcc) for fcc, bcc in COMPOSITION.values()], dtype=float)
    for name, extra in (("O", 3.0), ("C", 4.0)):  # dirt in the scratch
        content[list(COMPOSITION).index(name)] += extra * wound
    content = gaussian_filter(content, (0, XRAY_BLUR, XRAY_BLUR), mode="nearest")
    counts = rng.poisson(content * COUNTS_PER_PERCENT) + 1e-3
    return (100 * counts / counts.sum(axis=0)).astype(np.float32)


def _indexed_phase(truth: Microstructure, share: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """The phase an indexing program gives: the true one, -1 where patterns are poor or mixed."""
    phase = truth.phase.copy()
    if share > 0:
        score = truth.quality * truth.own_fraction + 0.1 * rng.standard_normal(phase.shape)
        worst = np.argsort(score, axis=None)[: int(np.ceil(share * phase.size))]
        phase.reshape(-1)[worst] = n.PHASE_UNKNOWN
    return phase


def _truth_maps(truth: Microstructure) -> dict[str, Any]:
    return {
        TRUE_GRAIN: (("y", "x"), truth.grain, {"long_name": "true grain number"}),
        TRUE_PHASE: (("y", "x"), truth.phase, {**_phase_attrs(), "long_name": "true phase"}),
        TRUE_QUALITY: (("y", "x"), truth.quality, {"long_name": "diffraction contrast", "units": "1"}),
        TRUE_SCRATCH: (("y", "x"), truth.scratch, {"long_name": "depth of the scratch", "units": "1"}),
        OWN_GRAIN_FRACTION: (("y", "x"), truth.own_fraction, {"long_name": "signal from the own grain", "units": "1"}),
    }


def _disc(ny: int, nx: int) -> NDArray[np.bool_]:
    y, x = np.meshgrid((np.arange(ny) + 0.5) / ny - 0.5, (np.arange(nx) + 0.5) / nx - 0.5, indexing="ij")
    return x**2 + y**2 < 0.45**2


def _phase_attrs() -> dict[str, Any]:
    meanings = " ".join(["not_indexed", *(crystal.name for crystal in CRYSTALS)])
    return {**n.ATTRS[n.PHASE], "flag_values": [n.PHASE_UNKNOWN, 0, 1], "flag_meanings": meanings}


def _pattern_attrs(detector: Detector) -> dict[str, Any]:
    return {
        **n.ATTRS[n.PATTERNS],
        n.NAVIGATION_DIMS: ["y", "x"],
        n.SIGNAL_DIMS: ["dy", "dx"],
        "projection_centre": [float(value) for value in detector.projection_centre],
        "projection_centre_convention": "Bruker",
        "sample_tilt": float(detector.sample_tilt),
        "beam_energy": float(detector.energy),
    }
