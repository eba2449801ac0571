"""How threads wait for each other; light, so that it is decided before a library with threads is loaded."""

from __future__ import annotations

import os

SPINS = "10000"  # a fraction of a millisecond; libgomp's own 300 000 are up to 15 ms


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon while they wait for each other; results do not depend on it.

    Where other processes want the cores, a thread that spins keeps them from the threads that it waits for. Read by
    libgomp as torch or scikit-learn is loaded, without effect after that. What the environment says already
    (`OMP_WAIT_POLICY`, `GOMP_SPINCOUNT`) stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
