"""Every dimension, variable and attribute name, spelt once, with its long_name and units."""

from __future__ import annotations

import re
from typing import Any

# dimensions
Z, Y, X = "z", "y", "x"
DZ, DY, DX = "dz", "dy", "dx"
CHANNEL, SAMPLE, ELEMENT, LATENT, EPOCH = "channel", "sample", "element", "latent", "epoch"
SCAN_DIMS = (Z, Y, X)
POSITIONS = ("lz", "ly", "lx")  # of a spatial latent, along z, y, x

# variables of a source
PATTERNS, PRESENT, BC, ELEMENTS, PHASE = "patterns", "present", "BC", "elements", "phase"
PATH = "path"  # of a sample's file
# coordinates of a collection whose values group samples
GROUPS = frozenset({"subject", "person", "patient", "site", "scanner", "group", "id"})

# variables of vaearr
ROI, SPLIT = "roi", "split"
LATENTS, LATENTS_STD, RECONSTRUCTION_ERROR = "latents", "latents_std", "reconstruction_error"
Z_DRAWS, DRAW = "z_draws", "draw"  # samples of the posterior, over dim draw
CLUSTERS, PCA, COMPONENT = "clusters", "pca", "component"
# variables and coordinates of an encoding; removing the first, latents, removes all
ENCODED = (LATENTS, LATENT, *POSITIONS, LATENTS_STD, RECONSTRUCTION_ERROR, Z_DRAWS, DRAW)
OF_A_RUN = (ROI, SPLIT, *ENCODED)
RUNS, HISTORY, HEALTH, SHEETS, MODEL = "runs", "history", "health", "sheets", "model"
GOOD = "good"  # attribute verdict_kind of the health of a run whose latents can be trusted
SCANS = "scans"  # table of a run that was trained on several scans: roi and split of all of them
RECONSTRUCTION, LATENT_STATISTICS = "reconstruction", "latent_statistics"

# files of a trained model, below /runs/<run>/model
MODEL_CONFIG, MODEL_WEIGHTS = "config.json", "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"

# names that maps and analyses may not take
RESERVED = {PATTERNS, PRESENT, ELEMENTS, PHASE, RUNS, HISTORY, HEALTH, MODEL, RECONSTRUCTION}
RESERVED |= {*SCAN_DIMS, DZ, DY, DX, CHANNEL, SAMPLE, ELEMENT, EPOCH, *OF_A_RUN}
# beginnings of the variables of runs other than the default one, see run_name; no other name may
# begin with latents or reconstruction_error, with or without an underscore
_WITH_UNDERSCORE = tuple(f"{name}_" for name in (ROI, SPLIT, LATENT, *POSITIONS, Z_DRAWS, DRAW))
PREFIXES_OF_RUNS = (*_WITH_UNDERSCORE, LATENTS, RECONSTRUCTION_ERROR)

# layers of a network, and parts of it
LAYER, PAIR, DIFFERENCE_MAP = "layer", "pair", "difference_map"
INPUT, ENCODER, DECODER, OUTPUT = "input", "encoder", "decoder", "output"

# attributes
NAVIGATION_DIMS, SIGNAL_DIMS = "navigation_dims", "signal_dims"
SCHEMA_VERSION, STORE_ID, PROVENANCE = "vaearr_schema", "store_id", "provenance"
PATTERNS_FINGERPRINT = "patterns_fingerprint"  # what the patterns were when they were ingested
SCHEMA = 1

DEFAULT_RUN = "vae"
ATTACHED = "attached"  # kind of a run whose latents were computed elsewhere
IMPORTED = "imported"  # kind of a run whose model was trained elsewhere

# values of the integer variable `split`
OUTSIDE, TRAIN, VALIDATION = 0, 1, 2
PHASE_UNKNOWN = -1  # scan point present, phase not indexed
PHASE_MISSING = -2  # no entry for this scan point

# values of a cluster map below its cluster numbers 0, 1, …
NOISE = -1  # in the ROI, in no cluster
NOT_CLUSTERED = -2  # outside the ROI, or a feature is missing

ATTRS: dict[str, dict[str, Any]] = {
    Z: {"long_name": "z", "axis": "Z"},
    Y: {"long_name": "y", "axis": "Y"},
    X: {"long_name": "x", "axis": "X"},
    DY: {"long_name": "detector row", "units": "px"},
    DX: {"long_name": "detector column", "units": "px"},
    PATTERNS: {"long_name": "diffraction pattern", "units": "counts"},
    PRESENT: {"long_name": "was measured"},
    BC: {"long_name": "band contrast", "units": "1"},
    ELEMENTS: {"long_name": "element content"},
    PHASE: {"long_name": "phase"},
    ROI: {
        "long_name": "region of interest",
        "flag_values": [0, 1],
        "flag_meanings": "outside analysed",
    },
    SPLIT: {
        "long_name": "training split",
        "flag_values": [OUTSIDE, TRAIN, VALIDATION],
        "flag_meanings": "outside train validation",
    },
    LATENT: {"long_name": "latent dimension"},
    LATENTS: {"long_name": "latent (posterior mean)", "units": "1"},
    LATENTS_STD: {"long_name": "latent posterior standard deviation", "units": "1"},
    Z_DRAWS: {"long_name": "samples of the latent posterior", "units": "1"},
    DRAW: {"long_name": "number of the posterior sample"},
    CLUSTERS: {"long_name": "cluster"},
    RECONSTRUCTION_ERROR: {
        "long_name": "mean squared reconstruction error per pixel",
        "units": "1",
    },
}

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


def is_valid_name(name: str) -> bool:
    """Return whether a name is a letter, then letters, digits and underscores."""
    return bool(_NAME.fullmatch(name))


def latent_dims(count: int) -> tuple[str, ...]:
    """Return the dims of a sample's latents by their number, such as `("latent", "ly", "lx")`."""
    return (LATENT, *POSITIONS[len(POSITIONS) - count + 1 :])


def run_name(variable: str, run: str) -> str:
    """Return a run's variable or dim: `latents` of the default run, `latents_b` of run `b`."""
    return variable if run == DEFAULT_RUN else f"{variable}_{run}"


def named(dims: str | tuple[str, ...], values: Any, long_name: str) -> tuple[Any, ...]:
    """Return a variable without unit, with its description."""
    return dims, values, {"long_name": long_name, "units": "1"}
