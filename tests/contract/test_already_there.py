"""One rule for every step: made the same way, it is there already; made otherwise, both ways out;
or replaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import vaearr as va
from vaearr.config import TrainConfig
from vaearr.errors import ExistsError

from . import inputs
from .harness import EXISTS, TINY, attributes, nested, tree, vaearr, zarr

EPOCHS = ("--x", "0:5", "--epochs", 6, "--set", "batch_size=64")


@dataclass(frozen=True)
class Step:
    """A step with what the template was made with, other settings, how these are named, and where
    its recipe lies.
    """

    same: tuple[object, ...]
    other: tuple[object, ...]
    differs: str
    recipe: Callable[[Path], Any]
    first: bool = True  # whether the template lacks it
    elsewhere: tuple[object, ...] | None = None  # the other way out

    def words(self, store: Path, files: dict[str, Path], more: tuple[object, ...]) -> list[object]:
        return [placed(word, store, files) for word in (*self.same, *more)]


def placed(word: object, store: Path, files: dict[str, Path]) -> str:
    return (
        str(word).replace("{store}", str(store)).replace("{files}", str(files["patterns"].parent))
    )


def table(run: str, name: str) -> Callable[[Path], Any]:
    return lambda store: nested(zarr(store, f"runs/{run}/{name}").attrs["provenance"])


MAPS = (
    "--bc",
    "{files}/bc.csv",
    "--elements",
    "{files}/elements.csv",
    "--phases",
    "{files}/phases.csv",
)
STEPS = {
    "ingest": Step(
        (
            "ingest",
            "{files}/scan.h5",
            "{store}",
            *MAPS,
            "--phase",
            "0=ferrite",
            "--phase",
            "1=austenite",
        ),
        ("--step", 2 * inputs.STEP),
        f"step={inputs.STEP}, requested: step={2 * inputs.STEP}",
        lambda store: nested(attributes(store)["provenance"])["ingest"],
        first=False,
    ),
    "attach": Step(
        (
            "attach",
            "{store}",
            "{files}/elements.csv",
            "--kind",
            "map",
            "--column",
            "Fe",
            "--name",
            "iron",
        ),
        ("--units", "wt%"),
        "units=None, requested: units=wt%",
        lambda store: nested(attributes(store, "iron")["provenance"]),
        elsewhere=("--name", "again"),
    ),
    "train": Step(
        ("train", "{store}", *EPOCHS, *TINY),
        ("--beta", 2),
        "stored: objective.beta=1.0, requested: objective.beta=2.0",
        lambda store: attributes(store / "runs" / "vae")["config"],
        first=False,
        elsewhere=("--run", "b"),
    ),
    "import": Step(
        ("import", "{store}", "{store}/runs/vae/model", "--run", "b"),
        ("--set", "seed=1"),
        "seed=0, requested: seed=1",
        lambda store: nested(attributes(store / "runs" / "b")["config"])["imported"],
        elsewhere=("--run", "c"),
    ),
    "encode": Step(
        ("encode", "{store}"),
        ("--set", "precision=bfloat16"),
        "precision=float32, requested: precision=bfloat16",
        lambda store: nested(attributes(store, "latents")["provenance"]),
        first=False,
        elsewhere=("--from", "{store}", "--name", "b"),
    ),
    "reconstruct": Step(
        ("reconstruct", "{store}", "--variable"),
        ("--x", "0:2"),
        "roi=None",
        table("vae", "reconstruction"),
        elsewhere=("--name", "box"),
    ),
    "associate": Step(
        ("associate", "{store}", "--metric", "all"),
        ("--metric", "hsic_unbiased"),
        "metrics",
        table("vae", "association"),
        first=False,
        elsewhere=("--name", "b"),
    ),
    "cluster": Step(
        ("cluster", "{store}", "--method", "kmeans", "--name", "grains"),
        ("--k", 5),
        "k=4, requested: k=5",
        lambda store: nested(attributes(store, "grains")["provenance"]),
        first=False,
        elsewhere=("--name", "five"),
    ),
}
OWN = {"ingest": ("--step", inputs.STEP), "cluster": ("--k", 4)}


@pytest.mark.parametrize("name", STEPS)
def test_by_command(name: str, trained_store: Path, scan_files: dict[str, Path]) -> None:
    step = STEPS[name]
    same, other = (
        step.words(trained_store, scan_files, more) for more in (OWN.get(name, ()), step.other)
    )
    if step.first:
        vaearr(*same)
    before, recipe = tree(trained_store), step.recipe(trained_store)
    told = vaearr(*same).err
    assert "already" in told
    assert "created with the same settings" in told
    assert tree(trained_store) == before
    error = vaearr(*other, code=EXISTS).error
    for word in (step.differs, "another", "--overwrite"):
        assert word in error
    assert tree(trained_store) == before
    if step.elsewhere is not None:
        vaearr(*other, *(placed(word, trained_store, scan_files) for word in step.elsewhere))
        assert step.recipe(trained_store) == recipe
    assert "replaced" in vaearr(*other, "--overwrite").err
    assert step.recipe(trained_store) != recipe
    assert "created with the same settings" in vaearr(*other).err
    assert "is intact" in vaearr("verify", trained_store).out


def calls(store: Path, files: dict[str, Path]) -> dict[str, Callable[..., Any]]:
    """Each step with a setting that says how it is made, and what else it is given."""
    numbers = json.loads(json.dumps(TINY_CONFIG))
    return {
        "ingest": lambda it, **more: va.ingest(files["patterns"], store, step=1.0 + it, **more),
        "attach": lambda it, **more: va.attach(
            store,
            files["patterns"].parent / "elements.csv",
            kind="map",
            name="e",
            columns=(("Fe", "Ni")[it],),
            **more,
        ),
        "train": lambda it, **more: va.train(
            store, config=TrainConfig.from_attrs(numbers), epochs=2, beta=1.0 + it, **more
        ),
        "import": lambda it, **more: va.import_model(
            store, store / "runs" / "vae" / "model", run="b", seed=it, **more
        ),
        "encode": lambda it, **more: va.encode(
            store, precision=("float32", "bfloat16")[it], **more
        ),
        "reconstruct": lambda it, **more: va.load_run(store).reconstruct(seed=it, **more),
        "associate": lambda it, **more: va.load_run(store).associate(
            name="own", targets=("BC",), metrics=(("pearson", "spearman")[it],), **more
        ),
        "cluster": lambda it, **more: va.load_run(store).cluster(method="kmeans", k=2 + it, **more),
    }


TINY_CONFIG = {
    "model": {
        "latent_dim": 3,
        "options": {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4},
    },
    "precision": "float32",
    "device": "cpu",
    "batch_size": 64,
}


@pytest.mark.parametrize("name", calls(Path(), {}))
def test_by_function(
    name: str, trained_store: Path, scan_files: dict[str, Path], said: list[str]
) -> None:
    call = calls(trained_store, scan_files)[name]
    call(0, overwrite=True)  # whatever the template holds
    before = tree(trained_store)
    said.clear()
    call(0)
    call(0, overwrite=True)  # nothing is made anew that is the same
    assert [line for line in said if "already" in line and "created with the same settings" in line]
    assert tree(trained_store) == before
    with pytest.raises(
        ExistsError,
        match=r"\(stored: .*, requested: .*\); .*overwrite=True \(--overwrite\)",
    ):
        call(1)
    assert tree(trained_store) == before
    call(1, overwrite=True)
    assert tree(trained_store) != before
    with pytest.raises(ExistsError):
        call(0)


def test_where_and_how_fast_decides_nothing(trained_store: Path) -> None:
    before = tree(trained_store)
    vaearr(
        "train",
        trained_store,
        *EPOCHS,
        *TINY,
        "--set",
        "checkpoint_minutes=9",
        "--set",
        "device_memory=1",
    )
    vaearr(
        "encode",
        trained_store,
        "--set",
        "batch_size=7",
        "--set",
        "device=cpu",
        "--set",
        "overlap=0.5",
    )
    assert tree(trained_store) == before


def test_what_is_made_from_what_was_replaced_is_made_otherwise(trained_store: Path) -> None:
    vaearr("encode", trained_store, "--set", "precision=bfloat16", "--overwrite")
    words = ("cluster", trained_store, "--method", "kmeans", "--k", 4, "--name", "grains")
    assert "created from other inputs: latents changed since" in vaearr(*words, code=EXISTS).error
    assert (
        "latents changed since"
        in vaearr("associate", trained_store, "--metric", "all", code=EXISTS).error
    )


def test_other_initial_weights_are_another_training(scan_store: Path) -> None:
    for run, init in (("first", ()), ("second", ("--init", "first"))):
        vaearr("train", scan_store, "--run", run, *init, *EPOCHS, *TINY)
    vaearr("train", scan_store, "--run", "first", *EPOCHS, *TINY, "--beta", 2, "--overwrite")
    again = ("train", scan_store, "--run", "second", "--init", "first", *EPOCHS, *TINY)
    assert "initial weights changed since" in vaearr(*again, code=EXISTS).error


def test_a_run_is_replaced_with_all_that_was_made_by_it(trained_store: Path) -> None:
    vaearr("train", trained_store, *EPOCHS, *TINY, "--beta", 2, "--overwrite")
    ds = zarr(trained_store)
    assert "latents" not in ds
    assert "grains" in ds  # which says what it was made of
    assert "association" not in xr.open_datatree(trained_store, engine="zarr")["runs/vae"]
    vaearr("encode", trained_store)


def test_what_another_step_made_is_never_replaced(trained_template: Path) -> None:
    before = tree(trained_template)
    error = vaearr("cluster", trained_template, "--name", "BC", "--overwrite", code=EXISTS).error
    assert "choose another name" in error
    assert tree(trained_template) == before
