"""A damaged store is told from a whole one: no number comes out of it, every finding can be mended
as it says.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr as zarr_python

import vaearr as va
from vaearr.errors import DataError

from .harness import BAD_DATA, CANNOT_WRITE, NO_INPUT, OK, USAGE, Done, tree, vaearr, zarr

pytestmark = pytest.mark.usefixtures("in_time")

SUMS = "checksums.sha256"
LATENTS = {
    "latents",
    "latents_std",
    "reconstruction_error",
    "latent",
}  # are written, and go, together


def flip(whole: Path, place: Path) -> None:
    data = bytearray(whole.read_bytes())
    data[len(data) // 2] ^= 4
    place.write_bytes(data)


def cut(whole: Path, place: Path) -> None:
    place.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def empty(whole: Path, place: Path) -> None:
    place.write_bytes(b"")


def remove(whole: Path, place: Path) -> None:
    pass


def link(whole: Path, place: Path) -> None:
    place.symlink_to(whole)


def pipe(whole: Path, place: Path) -> None:
    os.mkfifo(place)


DAMAGES: tuple[Callable[[Path, Path], None], ...] = (flip, cut, empty, remove, link, pipe)
FILES = {  # and folders, with the variable that each belongs to
    **{
        "patterns/c/0/0/0/0": "patterns",
        "latents/c/0/0/0": "latents",
        "BC/c/0/0": "BC",
        "x/c/0": "x",
    },
    **{
        "element/c/0": "element",
        "roi/c/0/0": "roi",
        "present/c/0/0": "present",
        "latents/zarr.json": "latents",
    },
    **{"BC": "BC", "patterns/c": "patterns", "runs/vae/zarr.json": "runs/vae"},
    "runs/vae/association/association/c/0/0/0": "runs/vae/association/association",
    "runs/vae/model/weights.safetensors": "runs/vae/model",
    "runs/vae/model/config.json": "runs/vae/model",
}


def findings(store: Path) -> list[dict[str, Any]]:
    done = vaearr("verify", store, "--json", code=None)
    found = list(json.loads(done.out)["findings"])
    assert done.code == (BAD_DATA if found else OK)
    return found


@pytest.mark.parametrize("file", FILES)
def test_every_damage_is_found_and_never_read(
    trained_store: Path, tmp_path: Path, file: str
) -> None:
    place, whole, drawn = trained_store / file, tmp_path / "whole", tmp_path / "drawn.png"
    for damage in (link,) if place.is_dir() else DAMAGES:
        if damage is link and file == "runs/vae/zarr.json":
            continue  # a group's own metadata: read through the link, and the same
        shutil.move(place, whole)
        damage(whole, place)
        found = findings(trained_store)
        assert FILES[file] in {item["variable"] for item in found}, (damage, found)
        assert any(item["place"].startswith(file) for item in found), (damage, found)
        assert all(item["do"] for item in found)
        if not file.endswith(".json") and not file.startswith("runs"):
            with pytest.raises(ValueError, match="symbolic link" if damage is link else file):
                va.open_store(trained_store, chunks=None)[FILES[file]].load()
        if "/association/" in file:
            with pytest.raises(DataError, match="association"):
                va.load_run(trained_store).table("association")
        if "/model/" in file and damage in (link, pipe):
            vaearr("look", "sample", trained_store, "--out", drawn, code=BAD_DATA)
            assert not drawn.exists()
        place.unlink(missing_ok=True)
        shutil.move(whole, place)
    assert findings(trained_store) == []


READERS: dict[str, tuple[str, list[str]]] = {  # what has to be taken out, so that commands read it
    "BC": (
        "runs/vae/association",
        [
            "look contrast STORE",
            "export STORE OUT --variable BC",
            "associate STORE --metric pearson",
        ],
    ),
    "latents": ("", ["look describe STORE", "export STORE OUT", "cluster STORE --k 2"]),
    "patterns": ("latents", ["encode STORE"]),
}


def run(command: str, store: Path) -> str:
    """The error of a command that must refuse, and leave nothing."""
    places = {"STORE": store, "OUT": store.parent / "out"}
    said = vaearr(*(places.get(word, word) for word in command.split()), code=BAD_DATA).error
    assert not places["OUT"].exists()
    return said


@pytest.mark.parametrize("variable", READERS)
@pytest.mark.parametrize(
    ("damage", "is_sealed"),
    [(flip, True), (flip, False), (remove, True), (link, True), (pipe, True)],
)
def test_a_damaged_chunk_is_named_by_every_reader(
    trained_store: Path,
    tmp_path: Path,
    variable: str,
    damage: Callable[[Path, Path], None],
    is_sealed: bool,
) -> None:
    removed, commands = READERS[variable]
    if removed:
        vaearr("verify", trained_store, "--remove", removed)
    if not is_sealed:
        (trained_store / variable / SUMS).unlink()
        commands = commands[:1]
    chunk = min(file for file in (trained_store / variable / "c").rglob("*") if file.is_file())
    name = str(chunk.relative_to(trained_store))
    shutil.move(chunk, tmp_path / "whole")
    damage(tmp_path / "whole", chunk)
    before = tree(trained_store)
    for command in commands:
        said = run(command, trained_store)
        assert name in said, said
        if damage is flip:
            assert f"vaearr verify {trained_store}" in said
    with pytest.raises(ValueError, match=name):
        va.open_store(trained_store)[variable].load()
    assert tree(trained_store) == before


def rewrite(store: Path, key: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the metadata of a group or variable where it is, and where it is listed."""
    for file in (f"{key}/zarr.json", "zarr.json"):
        about = json.loads((store / file).read_bytes())
        change(about["consolidated_metadata"]["metadata"][key] if file == "zarr.json" else about)
        (store / file).write_text(json.dumps(about))


def no_length(about: dict[str, Any]) -> None:
    about["chunk_grid"]["configuration"]["chunk_shape"] = [0, 0]


LIES: list[Callable[[dict[str, Any]], object]] = [
    lambda about: about.update(shape=[10**12, 10**12]),
    lambda about: about.update(shape=[-1, 35]),
    lambda about: about.update(shape="many"),
    lambda about: about.update(data_type="int32"),
    lambda about: about.update(data_type="nothing"),
    no_length,
    lambda about: about.update(dimension_names=["y", "y"]),
    lambda about: about.update(node_type="group"),
    lambda about: about.update(codecs=[{"name": "nothing"}]),
]


def test_metadata_that_lie(trained_store: Path) -> None:
    listing = (trained_store / "zarr.json").read_bytes()
    own = (trained_store / "BC" / "zarr.json").read_bytes()
    for change in LIES:
        rewrite(trained_store, "BC", change)
        found = findings(trained_store)
        assert "BC" in {item["variable"] for item in found}, found
        if change is no_length:
            run("look contrast STORE", trained_store)
        (trained_store / "BC" / "zarr.json").write_bytes(own)
        (trained_store / "zarr.json").write_bytes(listing)
    for file in ("runs/vae/model/config.json", "runs/vae/zarr.json", "zarr.json"):
        good = (trained_store / file).read_bytes()
        for content in ('{"a":' * 100_000 + "1" + "}" * 100_000, "null"):
            (trained_store / file).write_text(content)
            assert file in vaearr("verify", trained_store, code=BAD_DATA).out
        (trained_store / file).write_bytes(good)
    assert findings(trained_store) == []


def test_group_metadata_changed_by_hand_stay_damage(trained_store: Path) -> None:
    def told(done: Done) -> list[str]:  # all but the size on disk
        return [line for line in done.out.splitlines() if " on disk" not in line]

    before = vaearr("info", trained_store)
    files = {
        f"{group}/zarr.json" for group in ("runs/vae", "runs/vae/history", "runs/vae/association")
    }
    for file in files:
        about = json.loads((trained_store / file).read_bytes())
        about["attributes"] |= {"n_roi": 123456, "explained_variance": 0.99}
        (trained_store / file).write_text(json.dumps(about))
    done = vaearr(
        "info", trained_store, code=None
    )  # what was published is read, not what was changed
    assert "123456" not in done.out
    assert done.code == BAD_DATA or told(done) == told(before)
    attach(trained_store, "other")
    assert files <= {item["place"] for item in findings(trained_store)}


def attach(store: Path, name: str) -> Done:
    ds = zarr(store)
    np.save(store.parent / f"{name}.npy", np.ones((ds.sizes["y"], ds.sizes["x"]), "f4"))
    return vaearr("attach", store, store.parent / f"{name}.npy", "--kind", "map", "--name", name)


def test_one_broken_variable_hinders_no_other_and_can_be_repaired(trained_store: Path) -> None:
    want = zarr(trained_store).load()
    for variable, text in (
        ("BC", "{"),
        ("latents_pca", '{"zarr_format": 3, "node_type": "array"}'),
    ):
        (trained_store / variable / "zarr.json").write_text(text)
    attach(trained_store, "other")
    assert "other" in zarr(trained_store)
    assert not list(
        trained_store.parent.glob(".scan.zarr.staging")
    )  # nothing is left of the publication
    found = {item["variable"]: item for item in findings(trained_store)}
    assert set(found) == {"BC", "latents_pca"}
    assert f"vaearr verify {trained_store} --remove latents_pca" in found["latents_pca"]["do"]
    vaearr("verify", trained_store, "--remove", "latents_pca")
    vaearr("encode", trained_store, "--run", "pca")
    np.testing.assert_array_equal(zarr(trained_store).latents_pca.values, want.latents_pca.values)
    assert {item["variable"] for item in findings(trained_store)} == {"BC"}


def test_what_was_computed_is_taken_out_and_made_again(trained_store: Path) -> None:
    want = zarr(trained_store).load()
    (trained_store / "latents/c/0/0/0").write_bytes(b"")
    advice = findings(trained_store)[0]["do"]
    assert (
        f"'vaearr verify {trained_store} --remove latents' removes it, then run the command"
        in advice
    )
    for _ in range(2):
        vaearr("verify", trained_store, "--remove", "latents")
        assert not LATENTS & set(zarr(trained_store).variables)
        vaearr("encode", trained_store)
        assert findings(trained_store) == []
        for name in LATENTS:
            np.testing.assert_array_equal(zarr(trained_store)[name].values, want[name].values)
        shutil.rmtree(trained_store / "latents")  # listed, and gone: plain zarr would read NaN
    assert (
        "came with the source"
        in vaearr("verify", trained_store, "--remove", "BC", code=USAGE).error
    )
    assert (
        "has no 'nothing'"
        in vaearr("verify", trained_store, "--remove", "nothing", code=NO_INPUT).error
    )
    for gone, removed in (
        ("runs/vae/association", "runs/vae/association"),
        ("runs/vae", "runs/vae"),
    ):
        shutil.rmtree(trained_store / gone)
        found = [item for item in findings(trained_store) if item["variable"].startswith(gone)]
        assert any(
            f"vaearr verify {trained_store} --remove {removed}" in item["do"] for item in found
        ), found
        vaearr("verify", trained_store, "--remove", removed)
    vaearr("verify", trained_store)


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Files of this process cannot grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield limit
    limit(None)


def test_a_disk_that_is_full_while_checksums_are_added(scan_store: Path, small_files: Any) -> None:
    mine = zarr_python.open_group(scan_store, mode="r+").create_array(
        "mine", shape=(17, 22), chunks=(1, 1), dtype="float32", dimension_names=("y", "x")
    )
    mine[:] = np.random.default_rng(0).normal(size=(17, 22))
    small_files(12_000)  # the checksums of `mine` take 30 kB
    vaearr("verify", scan_store, "--seal", code=CANNOT_WRITE)
    small_files(None)
    assert [item["found"] for item in findings(scan_store)] == ["it is not listed"]
    vaearr("verify", scan_store, "--seal")
    assert "no checksums" not in vaearr("verify", scan_store).out
    assert len((scan_store / "mine" / SUMS).read_text().splitlines()) == 17 * 22 + 1


class Stopped(BaseException):
    """The program ends here."""


_left = [-1]


def _stop(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.rename" and _left[0] >= 0:
        _left[0] -= 1
        if _left[0] < 0:
            raise Stopped


def test_a_removal_that_was_stopped_is_no_damage(trained_store: Path, tmp_path: Path) -> None:
    """Stopped before a rename: nothing is damaged, all of it is listed or none, and any writer
    completes it.
    """
    sys.addaudithook(_stop)
    for renames in (1, 3, 50):
        store = Path(shutil.copytree(trained_store, tmp_path / str(renames) / "scan.zarr"))
        _left[0] = renames
        try:
            vaearr("verify", store, "--remove", "latents")
        except Stopped:
            assert findings(store) == []
            assert len(LATENTS & set(zarr(store).variables)) in (0, 4)
            if renames == 3:
                attach(store, "other")
                assert not LATENTS & {path.name for path in store.iterdir()}
                assert findings(store) == []
        else:
            assert renames == 50
        finally:
            _left[0] = -1
            shutil.rmtree(store.parent)
