"""What commands do to a folder, as functions of it: run in a process of their own, killed, run
again, compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

import vaearr as va
from vaearr import names as n
from vaearr.config import (
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
)
from vaearr.store import run_names
from vaearr.testing import write_scan_files

from ..data import random_patterns_dataset

STORE = "scan.zarr"
MAPS = {"BC": "bandcontrast.csv"}
TRAINING = TrainConfig(
    model=ModelConfig(
        latent_dim=2, options={"width": 4, "max_width": 8, "hidden": 8, "squeeze": 4}
    ),
    preprocess=PreprocessConfig(static_background="divide", normalise="zscore"),
    objective=ObjectiveConfig(target="self", input_noise=0.0),
    epochs=2,
    batch_size=256,
    precision="float32",
    device="cpu",
    seed=1,
    checkpoint_minutes=1e-6,
)
VOLATILE = {"time", "created", n.STORE_ID, "seconds", "mtime"}  # differ from run to run


def files(folder: Path) -> None:
    """The files of a small scan, some points of it missing."""
    scan = random_patterns_dataset({"y": 40, "x": 35}, {"dy": 8, "dx": 9}, missing=3)
    write_scan_files(scan, folder)
    rng = np.random.default_rng(0)
    np.save(folder / "other.npy", rng.normal(size=(40 * 35, 2)).astype(np.float32))


def ingest(folder: Path) -> None:
    if not (folder / STORE).exists():
        maps = {name: folder / file for name, file in MAPS.items()}
        va.ingest(
            folder / "scan.h5",
            folder / STORE,
            maps=maps,
            elements=folder / "elements.csv",
            step=0.5,
            units="um",
        )


def train(folder: Path) -> None:
    if n.DEFAULT_RUN not in run_names(folder / STORE):
        va.train(folder / STORE, config=TRAINING)


def encode(folder: Path) -> None:
    va.encode(folder / STORE)


def associate(folder: Path) -> None:
    va.load_run(folder / STORE).associate(metrics=("pearson", "spearman"))


def cluster(folder: Path) -> None:
    va.load_run(folder / STORE).cluster(method="kmeans", k=3)


def attach(folder: Path) -> None:
    if "other" not in run_names(folder / STORE):
        va.attach(folder / STORE, folder / "other.npy", run="other")


def probe(folder: Path) -> None:
    va.load_run(folder / STORE).probe(targets=("BC",))


def reconstruct(folder: Path) -> None:
    va.load_run(folder / STORE).reconstruct(out="variable")


def keep(folder: Path) -> None:
    ds = va.open_store(folder / STORE)
    va.keep(
        folder / STORE,
        twice=ds.BC * 2,
        thrice=ds.BC * 3,
        table=xr.Dataset({"a": ("i", [1.0, 2.0])}),
    )


OVERWRITES: dict[str, Callable[[Path], object]] = {  # of what the jobs above made
    "train": lambda store: va.train(store, config=TRAINING.replace(seed=3), overwrite=True),
    "encode": lambda store: va.encode(store, precision="bfloat16", overwrite=True),
    "associate": lambda store: va.load_run(store).associate(
        metrics=("kendall",), targets=("BC",), overwrite=True
    ),
    "cluster": lambda store: va.load_run(store).cluster(method="kmeans", k=4, overwrite=True),
    "attach": lambda store: va.attach(
        store, 2 * np.load(store.parent / "other.npy"), run="other", overwrite=True
    ),
    "probe": lambda store: va.load_run(store).probe(targets=("BC",), seed=5, overwrite=True),
    "reconstruct": lambda store: va.load_run(store).reconstruct(
        out="variable", seed=5, overwrite=True
    ),
    "keep": lambda store: va.keep(
        store,
        twice=va.open_store(store).BC + 1,
        table=xr.Dataset({"a": ("i", [3.0])}),
        overwrite=True,
    ),
    "ingest": lambda store: va.ingest(store.parent / "scan.h5", store, step=0.25, overwrite=True),
}


def overwrite(folder: Path, step: str) -> None:
    """Make the result of a step again, with other settings."""
    OVERWRITES[step](folder / STORE)


STEPS = (files, ingest, train, encode, associate, cluster, attach, probe, reconstruct, keep)
JOBS: dict[str, Callable[..., None]] = {job.__name__: job for job in (*STEPS, overwrite)}
TRAINED = ("files", "ingest", "train", "encode")
BEFORE = {  # what has to be done before a job
    "ingest": TRAINED[:1],
    "train": TRAINED[:2],
    "encode": TRAINED[:3],
    **dict.fromkeys(("cluster", "attach"), TRAINED),
    "overwrite": tuple(job.__name__ for job in STEPS),
}


def contents(store: Path) -> dict[str, Any]:
    """All that a store says: values and attributes of every listed array and group, and the
    weights, without times.
    """
    found: dict[str, Any] = {}
    group = zarr.open_group(store, mode="r", zarr_format=3)
    for name, item in group.members(max_depth=None):
        found[f"{name}@"] = json.dumps(_steady(dict(item.attrs)), sort_keys=True)
        if isinstance(item, zarr.Array) and name.rsplit("/", 1)[-1] != "seconds":
            found[name] = (item.shape, str(item.dtype), np.asarray(item[...]).tobytes() if item.dtype.kind in "iufb"
                           else [str(v) for v in np.ravel(item[...])])  # fmt: skip
    found["@"] = json.dumps(_steady(dict(group.attrs)), sort_keys=True)
    for file in store.glob("runs/*/model/weights.safetensors"):
        found[str(file.relative_to(store))] = file.read_bytes()
    return found


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    if isinstance(value, str) and value.startswith(("{", "[")):  # as attributes keep what is nested
        return _steady(json.loads(value))
    return value
