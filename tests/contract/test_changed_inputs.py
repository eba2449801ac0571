"""What plain xarray writes into patterns or a map is noticed by every step that uses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import DataError

from .harness import BAD_DATA, EXISTS, OK, TINY, attributes, nested, vaearr, zarr

pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part"),
    pytest.mark.filterwarnings("ignore:Object at model is not recognized"),
]


def _changed(store: Path, name: str) -> xr.Dataset:
    return (
        xr.open_zarr(store)[[name]]
        .load()
        .map(lambda v: (v.max() - v).astype(v.dtype).assign_attrs(v.attrs))
    )


def whole(store: Path, name: str) -> None:
    """Other values everywhere."""
    _changed(store, name).to_zarr(store, mode="a")


def region(store: Path, name: str) -> None:
    """Other values in a few rows."""
    part = _changed(store, name).isel(y=slice(2, 5))
    part.drop_vars([c for c in part.coords if "y" not in part[c].dims]).to_zarr(
        store, region={"y": slice(2, 5)}
    )


WRITES: dict[str, Callable[[Path, str], None]] = {"whole": whole, "region": region}
STEPS: dict[str, tuple[object, ...]] = {
    "train": ("train", "--run", "b", "--epochs", 1, *TINY),
    "encode": ("encode",),
    "associate": ("associate", "--metric", "pearson"),
    "cluster": (
        "cluster",
        "--method",
        "kmeans",
        "--k",
        4,
        "--name",
        "grains",
        "--feature",
        "latents",
        "--feature",
        "BC",
    ),
    "probe": ("probe", "--target", "BC"),
    "reconstruct": ("reconstruct",),
    "report": ("report",),
}
USES_BC = {  # exit code and words; all other steps do not use BC and work as before
    "associate": (EXISTS, "created from other inputs: BC changed since"),
    "cluster": (EXISTS, "created from other inputs: BC changed since"),
    "probe": (EXISTS, "created from other inputs: BC changed since"),
    "report": (BAD_DATA, "'grains' of {store} was created from other inputs: BC changed since"),
}


@pytest.fixture(scope="module")
def made_template(template: Callable[..., Path], trained_template: Path) -> Path:
    """The trained scan, with results of all steps."""
    import shutil

    def make(folder: Path) -> None:
        store = shutil.copytree(trained_template, folder / "scan.zarr")
        for name in ("associate", "cluster"):
            vaearr(STEPS[name][0], store, *STEPS[name][1:], "--overwrite")
        for name in ("probe", "reconstruct"):
            vaearr(STEPS[name][0], store, *STEPS[name][1:])

    return template("all-steps", make) / "scan.zarr"


@pytest.fixture
def made_store(made_template: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(made_template, tmp_path / "scan.zarr"))


def do(step: str, store: Path, *more: object, code: int | None = OK) -> str:
    done = vaearr(STEPS[step][0], store, *STEPS[step][1:], *more, code=code)
    return done.error if done.code else done.err


@pytest.mark.parametrize("write", WRITES)
def test_other_patterns(made_store: Path, write: str) -> None:
    WRITES[write](made_store, "patterns")
    for step in STEPS:
        error = do(step, made_store, code=BAD_DATA)
        assert f"the patterns of {made_store} were changed since they were ingested" in error
        assert "restore them from a copy, or accept the new values with 'vaearr verify" in error
    assert "damaged: patterns/c/0/0" in vaearr("verify", made_store, code=BAD_DATA).out
    assert "--seal" in vaearr("verify", made_store, code=BAD_DATA).out
    vaearr("verify", made_store, "--seal")
    assert "is intact" in vaearr("verify", made_store).out
    assert "created from other inputs: patterns changed since" in do(
        "encode", made_store, code=EXISTS
    )
    for step in ("associate", "cluster", "report"):  # whose latents are of the old patterns
        error = do(step, made_store, code=BAD_DATA)
        assert (
            f"'latents' of {made_store} was created from other inputs: patterns changed since"
            in error
        )
        assert "--overwrite" in error
    do("train", made_store)
    do("encode", made_store, "--overwrite")
    assert "latents changed since" in do("associate", made_store, code=EXISTS)
    do("associate", made_store, "--overwrite")


@pytest.mark.parametrize("write", WRITES)
def test_other_band_contrast(made_store: Path, write: str) -> None:
    before = va.load_run(made_store).table("association")
    WRITES[write](made_store, "BC")
    for step in STEPS:
        code, words = USES_BC.get(step, (OK, ""))
        assert words.format(store=made_store) in do(step, made_store, code=code)
    vaearr("verify", made_store, "--seal")
    do("associate", made_store, "--overwrite")
    do("cluster", made_store, "--overwrite")
    after = va.load_run(made_store).table("association")
    assert not np.allclose(
        before.association.sel(target="BC"), after.association.sel(target="BC"), equal_nan=True
    )
    assert "is intact" in vaearr("verify", made_store).out


def test_every_recipe_says_what_the_inputs_were(made_store: Path) -> None:
    known = {
        name: nested(attributes(made_store, name)["provenance"])["fingerprints"]
        for name in ("latents", "grains")
    }
    assert set(known["latents"]) == {"patterns", "roi"}
    assert set(known["grains"]) == {"latents", "BC", "roi"}
    assert known["latents"]["roi"] == known["grains"]["roi"]
    assert "patterns" in attributes(made_store / "runs" / "vae")["fingerprints"]


def test_the_same_values_written_again_are_no_change(made_store: Path) -> None:
    xr.open_zarr(made_store)[["BC"]].load().to_zarr(made_store, mode="a")
    assert "created with the same settings" in do("associate", made_store)


def test_what_another_program_appended_is_damage(made_store: Path) -> None:
    y = zarr(made_store).y.values
    more = xr.open_zarr(made_store)[["BC"]].load().isel(y=slice(3))
    more = more.drop_vars([c for c in more.coords if more[c].dims != ("y",) or c != "y"])
    more.assign_coords(y=y[-1] + 1 + np.arange(3)).to_zarr(made_store, mode="a", append_dim="y")
    with pytest.raises(DataError, match="conflicting sizes for dimension 'y'"):
        va.open_store(made_store)
    found = vaearr("verify", made_store, code=BAD_DATA).out
    assert "BC/c/1/0: it does not belong there; restore it from a copy" in found
    assert "is damaged" in vaearr("verify", made_store, "--seal", code=BAD_DATA).error
