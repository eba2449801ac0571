"""Numbers of the analyses in `known_template`, and as they were on one day:
`recorded/analyses.json`.

`python -m tests.contract.analyses STORE` wrote that file, of such a store. Its latents and patterns
are known numbers and nothing in it was trained, so that any machine and any later version must come
to the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import vaearr as va

from .harness import attributes, nested, zarr

RECORDED = Path(__file__).parent / "recorded" / "analyses.json"
CLUSTERS = ("three", "contrasts", "dense")


def measure(store: Path) -> dict[str, Any]:
    """What is recorded, as JSON: p-values by metric, latent and target, labels row by row, misfits."""
    ds, table = zarr(store), zarr(store, "runs/theirs/association")
    health = zarr(store, "runs/pca/health")
    numbers = {name: table[name].transpose("metric", "latent_theirs", "target").values for name in ("association",
               "p_value", "p_adjusted", "n_effective", "low", "high")}  # fmt: skip
    return {
        **{name: np.round(values.astype(float), 6).tolist() for name, values in numbers.items()},
        "pca_explained_variance_ratio": np.round(
            health.explained_variance_ratio.values, 8
        ).tolist(),
        "nmf": {
            key: round(va.load_run(store, "nmf").manifest["fit"][key], 8) for key in ("mse", "r2")
        },
        "eps": round(nested(attributes(store, "dense")["parameters"])["eps"], 8),
        "labels": {name: " ".join(map(str, ds[name].values.ravel())) for name in CLUSTERS},
    }


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(measure(Path(sys.argv[1]))) + "\n")
