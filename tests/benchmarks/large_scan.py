"""A scan of the size that microscopes give, written in pieces: far larger than memory, with its
truth.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.schema.pattern_steps import block_means
from vaearr.testing import scan as parts
from vaearr.testing import write_scan_files
from vaearr.testing.kikuchi import Detector, Floats

BANDS = (
    80  # least pixels along a side that bands are drawn with; between them they are interpolated
)
BANK = 2**24  # draws of noise, of which each pattern takes a part from a place of its own
AT_ONCE = 8  # patterns whose values are in work in one thread


def write_large_scan(
    folder: str | Path,
    nx: int = 399,
    ny: int = 330,
    *,
    pattern_shape: tuple[int, int] = (400, 500),
    n_grains: int = 400,
    n_twins: int = 40,
    seed: int = 0,
    dose: float = 20.0,
    contrast: float = 0.115,
    chunk: int = 16,
) -> tuple[dict[str, Path], xr.Dataset]:
    """A scan as of `synthetic_scan`, as the files of `write_scan_files`, row by row; and the truth
    behind it.

    For speed, the bands of large patterns are drawn on fewer pixels and interpolated, and noise is
    Gaussian of the electrons' variance. Patterns lie uncompressed, `chunk` side by side. About 0.6
    GB of memory, and a minute for 4 GB on two cores.

    Returns the path of each file by the variable it holds, and a Dataset of the maps, `BC`,
    elements and phases and the truth, without patterns.
    """
    import h5py

    structure, noise, maps = (
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3)
    )
    truth = parts.microstructure(
        ny, nx, n_grains=n_grains, n_twins=n_twins, scratch=True, rng=structure
    )
    shape, folder = pattern_shape, Path(folder)
    coarser = max(1, min(shape) // BANDS)
    coarse = Detector((shape[0] // coarser, shape[1] // coarser))
    between = [_between(few, many) for few, many in zip(coarse.shape, shape, strict=True)]
    lit, gain = (
        parts.illumination(shape, dose),
        np.float32(175 / (dose * truth["brightness"].max())),
    )
    bank = noise.standard_normal(BANK + shape[0] * shape[1], dtype=np.float32)

    def finished(y: int, signal: Floats, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Patterns of a row of scan points, as the camera gives them, and their quality."""
        out = np.empty((nx, *shape), np.uint8)
        strength = contrast * truth["true_quality"][y]
        for start in range(0, nx, AT_ONCE):
            some = slice(start, start + AT_ONCE)
            values = between[0] @ signal[some] @ between[1].T
            values *= strength[some, None, None]
            values += 1
            values *= lit
            values *= truth["brightness"][y, some, None, None]
            np.maximum(values, 0, out=values)
            spread = np.sqrt(values + np.float32(parts.READ_NOISE**2))
            for pattern, offset in zip(spread, offsets[some], strict=True):
                pattern *= bank[offset : offset + pattern.size].reshape(shape)
            values += spread
            values *= gain
            out[some] = np.clip(np.rint(values, out=values), 0, 255, out=values)
        return out, parts.image_quality(block_means(out, (coarser, coarser)))

    folder.mkdir(parents=True, exist_ok=True)
    paths, quality = {n.PATTERNS: folder / "scan.h5"}, np.empty((ny, nx), np.float32)
    rows = enumerate(parts.mixed_signals(truth, coarse))
    with h5py.File(paths[n.PATTERNS], "w") as file, ThreadPoolExecutor(2) as pool:
        images = file.create_dataset(
            "images", (ny * nx, 1, *shape), np.uint8, chunks=(chunk, 1, *shape)
        )
        waiting = [
            pool.submit(finished, *row, noise.integers(0, BANK, nx)) for row in islice(rows, 2)
        ]
        for y in range(ny):
            patterns, quality[y] = waiting.pop(0).result()
            waiting += [
                pool.submit(finished, *row, noise.integers(0, BANK, nx)) for row in islice(rows, 1)
            ]
            images[y * nx : (y + 1) * nx, 0] = patterns
        steps = np.stack([np.tile(np.arange(nx), ny), np.repeat(np.arange(ny), nx)], axis=1)
        file.create_dataset("coords", data=steps.astype(np.int32))
    found = parts.side_maps(truth, quality, maps)
    ds = xr.Dataset(found, parts.scan_coords({"y": ny, "x": nx}, 0.25, ())).assign_coords(
        element=[*parts.COMPOSITION]
    )
    return paths | write_scan_files(ds, folder), ds


def _between(few: int, many: int) -> Floats:
    """Linear interpolation from `few` pixels to `many` over the same length, `(many, few)`."""
    centres = np.clip((np.arange(many) + 0.5) * few / many - 0.5, 0, few - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(few))).astype(np.float32)
