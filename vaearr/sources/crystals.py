"""Kikuchi patterns of a crystal at all orientations, simulated by kikuchipy (an optional package, GPL)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from vaearr.config.probes import MatchConfig
from vaearr.errors import DataError, need

WEAK = 0.1  # structure factors below this share of the largest make no band
BLOCK = 2048  # simulations at once


def simulated(file: Path, shape: Sequence[int], centre: Sequence[float], config: MatchConfig) -> Iterator[torch.Tensor]:
    """Patterns `(B, H, W)` of a CIF or a master pattern, at orientations over all of its fundamental zone."""
    need("kikuchipy", "vaearr[ebsd]", "simulating crystals")
    import kikuchipy as kp
    from orix.sampling import get_sample_fundamental

    try:
        master = _master(file, config)
    except Exception as error:  # as many kinds as readers
        raise DataError(f"{file} is no CIF file or master pattern that can be read: {error}") from error
    tilts = {"sample_tilt": config.sample_tilt, "tilt": config.tilt, "convention": "bruker"}
    detector = kp.detectors.EBSDDetector(tuple(shape), pc=tuple(centre), **tilts)
    turned = get_sample_fundamental(resolution=config.resolution, point_group=master.phase.point_group)
    how = {"energy": config.energy, "dtype_out": "float32", "compute": True, "show_progressbar": False}
    for start in range(0, turned.size, BLOCK):
        yield torch.from_numpy(master.get_patterns(turned[start : start + BLOCK], detector, **how).data)


def _master(file: Path, config: MatchConfig) -> Any:
    """The master pattern in a file, or that of a CIF's structure."""
    import kikuchipy as kp
    from diffsims.crystallography import ReciprocalLatticeVector
    from orix.crystal_map import Phase

    if file.suffix.lower() != ".cif":
        return kp.load(file, projection="lambert", hemisphere="both", energy=config.energy)
    planes = ReciprocalLatticeVector.from_min_dspacing(Phase.from_cif(file), config.spacing)
    planes.sanitise_phase()
    planes.calculate_structure_factor()
    strength = abs(planes.structure_factor)
    planes = planes[strength > WEAK * strength.max()]
    planes.calculate_theta(1e3 * config.energy)
    simulator = kp.simulations.KikuchiPatternSimulator(planes)
    with redirect_stderr(StringIO()):  # a bar for each
        return simulator.calculate_master_pattern(half_size=150, hemisphere="both").as_lambert(show_progressbar=False)
