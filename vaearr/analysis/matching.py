"""Phases by their crystal structure: which of several simulated crystals explains each pattern best."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr

from vaearr import names as n
from vaearr.computing.progress import Progress, showing_tasks
from vaearr.config import resolved, settings_as_keywords
from vaearr.config.probes import MatchConfig
from vaearr.errors import NoInputError, UsageError
from vaearr.models.preprocess import dynamic_background
from vaearr.recipe import Recipe, nested
from vaearr.run import open_run
from vaearr.sources.crystals import BLOCK, simulated
from vaearr.store import open_store
from vaearr.store.once import made_once

CRYSTAL, CORRELATION = "crystal", "correlation"
SLOW = 0.1  # width of what is removed from patterns and simulations, as a share of the smaller side


@settings_as_keywords(MatchConfig)
def match_phases(
    store: str | Path,
    crystals: Sequence[str | Path],
    config: MatchConfig | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = True,
    **settings: Any,
) -> xr.Dataset:
    """Tell phases of a scan by candidate crystals, without labels: also of grains that nothing else is like.

    crystals: CIF files, or master patterns that kikuchipy reads; the file's name is the phase's. Each is simulated at
    orientations all over its fundamental zone (of a CIF kinematically: bands of the lattice planes, intensity by
    structure factor, Winkelmann et al., Ultramicroscopy 107, 414 (2007)), and compared with what the run's model
    decodes of each point's latents, which holds no noise: normalised cross-correlation, as in dictionary indexing
    (Chen et al., Microsc. Microanal. 21, 739 (2015)). Simulations of one crystal are held in memory.

    Written as `<name>`, codes of the crystal that correlates best (-1 outside the region), and
    `<name>_correlation (crystal, y, x)`, the best correlation with each. Raises UsageError without a projection centre
    and for fewer than two crystals, NoInputError for a file, run or latents that are not there, MissingExtraError
    without kikuchipy.
    """
    config = resolved(MatchConfig, config, settings)
    files = [Path(one) for one in crystals]
    if len(files) < 2 or len({file.stem for file in files}) < len(files):
        raise UsageError(f"{len(files)} crystals: give two files or more, each of another name.")
    for file in files:
        if not file.is_file():
            raise NoInputError(f"there is no file {file}.")
    opened = open_run(store, config.run)
    path, latents = opened.store, n.run_name(n.LATENTS, config.run)
    ds = open_store(path)
    if latents not in ds:
        raise NoInputError(f"run {config.run!r} of {path} has no latents yet; encode it first.")
    centre = config.projection_centre or (nested(ds.attrs, "detector") or {}).get("projection_centre")
    if centre is None or len(opened.model.seen_shape) != 3:
        raise UsageError("the detector is not known: set projection_centre=(x, y, z), in Bruker's convention.")
    sums = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    recipe = Recipe(config, {"crystals": sums, "parents": nested(ds[latents].attrs, n.PROVENANCE)})
    names = [config.name, f"{config.name}_{CORRELATION}"]

    def make() -> xr.Dataset:
        with showing_tasks(progress, "matching phases"):
            found = xr.concat([_best(opened, ds[latents], one, centre, config) for one in files], CRYSTAL)
        codes = found.fillna(-2).argmax(CRYSTAL).where(found.notnull().all(CRYSTAL), -1).astype("i2")
        meanings = {"flag_values": [-1, *range(len(files))], "flag_meanings": " ".join(["none", *sums])}
        codes.attrs = {"long_name": "crystal that explains the pattern best", **meanings}
        found.attrs = {"long_name": "best correlation with simulations", "units": "1"}
        maps = xr.Dataset(dict(zip(names, (codes, found), strict=True)), {CRYSTAL: list(sums)})
        return maps.rename({CRYSTAL: f"{config.name}_{CRYSTAL}"})

    return made_once(path, ds, names, recipe, make, "kikuchipy", overwrite=overwrite)


def _best(opened: Any, latents: xr.DataArray, file: Path, centre: Sequence[float], config: MatchConfig) -> xr.DataArray:
    """Best correlation of each point with any simulation of one crystal; NaN without latents."""
    model = opened.model
    like = torch.cat([_shapes(part) for part in simulated(file, model.seen_shape[1:], centre, config)]).to(model.device)

    def best(z: np.ndarray) -> np.ndarray:
        flat, out = z.reshape(-1, z.shape[-1]), np.full(z.shape[:-1], np.nan, np.float32)
        inside = np.flatnonzero(np.isfinite(flat).all(1))
        for part in filter(len, np.split(inside, range(BLOCK, len(inside), BLOCK))):
            decoded = _shapes(model.decode_batch(torch.from_numpy(flat[part])).mean(1))
            highest = [(decoded @ some.T).amax(1) for some in like.split(8 * BLOCK)]
            out.flat[part] = torch.stack(highest).amax(0).cpu().numpy()
        return out

    how: dict[str, Any] = {"dask": "parallelized", "output_dtypes": [np.float32]}
    found: xr.DataArray = xr.apply_ufunc(best, latents, input_core_dims=[[latents.dims[-1]]], **how).compute()
    return found


def _shapes(patterns: torch.Tensor) -> torch.Tensor:
    """Patterns `(B, H, W)` without their slow part, each of mean 0 and length 1, `(B, H * W)`."""
    flat = (patterns - dynamic_background(patterns, SLOW)).flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True))
