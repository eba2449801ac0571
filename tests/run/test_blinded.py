"""A set for a reader: nothing tells real from drawn but what they show, the key is apart, and scores are right."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom
from typer.testing import CliRunner

import vaearr as va
from vaearr.cli import app
from vaearr.config import PreprocessConfig
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError
from vaearr.run.train import train
from vaearr.store import create_store, open_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset
from ..store.test_store import tree_hash
from .test_fidelity import volumes  # noqa: F401  # a fixture

SET = {"n_real": 5, "n_drawn": 4, "part": "all"}


def _key(out: Path) -> dict[str, dict[str, str]]:
    with (out / "key.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _alike(out: Path) -> list[Path]:
    """The reader's files, after what can be seen from outside was compared."""
    files = sorted((out / "images").iterdir())
    assert len({path.stat().st_size for path in files}) == 1
    assert len({path.stat().st_mtime_ns for path in files}) == 1
    changed = [path.stat().st_ctime_ns for path in files]
    assert changed == sorted(changed)  # written in the order of the random names
    assert all(re.fullmatch(r"[0-9a-f]{6}\.(png|nii)", path.name) for path in files)
    return files


def _grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image).astype(int)


def test_images(collection: Path, tmp_path: Path) -> None:
    before, out = tree_hash(collection), tmp_path / "set"
    found = va.blinded_set(collection, "vae", out, seed=4, **SET)
    files, key = _alike(out), _key(out)
    assert [path.name for path in files] == list(key) == found["name"].values.tolist()
    assert sorted(row["truth"] for row in key.values()) == ["drawn"] * 4 + ["real"] * 5
    assert [row["truth"] for row in key.values()] != sorted(row["truth"] for row in key.values())
    stored = open_store(collection, chunks=None)["patterns"].values
    drawn = va.sample_prior(collection, n_samples=4, seed=4)["decoded"].values
    for path in files:
        with Image.open(path) as image:
            assert (image.mode, image.size, image.info) == ("RGB", (13, 12), {})
            values = np.moveaxis(np.asarray(image), -1, 0)
        row = key[path.name]
        number = int(re.search(r"\d+", row["origin"])[0])  # type: ignore[index]
        want = stored[number] if row["truth"] == "real" else np.clip(np.rint(drawn[number]), 0, 255)
        np.testing.assert_allclose(values, want, atol=1)
    assert tree_hash(collection) == before
    va.blinded_set(collection, "vae", tmp_path / "again", seed=4, **SET)
    assert (tmp_path / "again" / "key.csv").read_bytes() == (out / "key.csv").read_bytes()
    va.blinded_set(collection, "vae", tmp_path / "other", seed=5, **SET)
    assert not set(_key(tmp_path / "other")) & set(key)
    assert (out / "answers.csv").read_text().splitlines()[1] == f"{files[0].name},"


def test_reconstructions_are_of_other_samples(collection: Path, tmp_path: Path) -> None:
    va.blinded_set(collection, "vae", tmp_path / "set", kind="reconstructions", **SET)
    _alike(tmp_path / "set")
    numbers = [re.search(r"\d+", row["origin"])[0] for row in _key(tmp_path / "set").values()]  # type: ignore[index]
    assert len(set(numbers)) == 9


def test_samples_in_other_units_get_one_scale(trained_store: Path, tmp_path: Path) -> None:
    va.blinded_set(trained_store, "vae", tmp_path / "set", **SET)  # z-scored patterns: draws have no stored scale
    files, key = _alike(tmp_path / "set"), _key(tmp_path / "set")
    pixels = {path.name: _grey(path) for path in files}
    real = np.concatenate([pixels[name].ravel() for name, row in key.items() if row["truth"] == "real"])
    assert (real.min(), real.max()) == (0, 255)
    assert 0.002 < (real == 255).mean() < 0.02
    va.blinded_set(trained_store, "vae", tmp_path / "rec", kind="reconstructions", **SET)
    assert all(row["origin"].partition("y ")[2] for row in _key(tmp_path / "rec").values())


def test_whole_numbers_show_no_gaps(tmp_path: Path) -> None:
    """Real samples of few levels: what is drawn has no others."""
    ds = random_patterns_dataset({"sample": 20}, {"y": 12, "x": 13}, dtype="uint16")
    ds["patterns"] = ds["patterns"].copy(data=ds["patterns"].values // 6000 + 100)
    store = create_store(ds, tmp_path / "few.zarr")
    plain = PreprocessConfig(static_background="subtract", normalise="none")
    self_target = TINY_TRAINING.objective.replace(target="self").to_attrs()
    train(store, config=TINY_TRAINING.replace(preprocess=plain.to_attrs(), objective=self_target, epochs=1))
    va.blinded_set(store, "vae", tmp_path / "set", **SET)
    key = _key(tmp_path / "set")
    levels = {"real": set(), "drawn": set()}  # type: dict[str, set[int]]
    for path in _alike(tmp_path / "set"):
        levels[key[path.name]["truth"]] |= set(np.unique(_grey(path)).tolist())
    assert len(levels["real"]) <= 11
    assert levels["drawn"] <= levels["real"]


def test_volumes(volumes: Path, tmp_path: Path) -> None:  # noqa: F811
    nib = pytest.importorskip("nibabel")
    va.blinded_set(volumes, "vae", tmp_path / "set", n_real=3, n_drawn=2, part="all")
    files = _alike(tmp_path / "set")
    images = [nib.load(path) for path in files]
    assert {image.shape for image in images} == {(22, 20, 18)}
    assert {str(image.get_data_dtype()) for image in images} == {"int16"}
    assert len({path.read_bytes()[:352] for path in files}) == 1  # the whole header
    assert max(int(np.asarray(image.dataobj).max()) for image in images) == 4095


def _answer(folder: Path, answers: dict[str, str]) -> Path:
    path = folder / "answers.csv"
    path.write_text("name,answer\n" + "".join(f"{name},{answer}\n" for name, answer in answers.items()))
    return path


def _write_key(folder: Path, truths: list[str]) -> tuple[Path, list[str]]:
    names = [f"{i:06x}.png" for i in range(len(truths))]
    path = folder / "key.csv"
    rows = [f"{name},{truth},x" for name, truth in zip(names, truths, strict=True)]
    path.write_text("\n".join(["name,truth,origin", *rows]) + "\n")
    return path, names


def test_score(tmp_path: Path) -> None:
    key, names = _write_key(tmp_path, ["real"] * 10 + ["drawn"] * 10)
    said = ["real"] * 9 + ["drawn"] + [" Drawn "] * 7 + ["real"] * 2 + [""]
    found = va.score_blinded(key, _answer(tmp_path, dict(zip(names, said, strict=True))))
    assert found["confusion"].values.tolist() == [[9, 1], [2, 7]]
    attrs = found.attrs
    assert (attrs["n"], attrs["n_unanswered"], attrs["accuracy"]) == (19, 1, 16 / 19)
    p, z = 16 / 19, 1.959964
    centre, half = p + z**2 / 38, z * np.sqrt(p * (1 - p) / 19 + z**2 / (4 * 19**2))
    assert attrs["low"] == pytest.approx((centre - half) / (1 + z**2 / 19), rel=1e-5)
    assert attrs["high"] == pytest.approx((centre + half) / (1 + z**2 / 19), rel=1e-5)
    assert attrs["chance"] == 10 / 19
    assert attrs["p_value"] == pytest.approx(binom.sf(15, 19, 10 / 19))
    assert attrs["sentence"].startswith("The reader tells real from drawn: 16 of 19 right, 84%")


def test_a_reader_who_always_says_the_same_tells_nothing(tmp_path: Path) -> None:
    key, names = _write_key(tmp_path, ["real"] * 30 + ["drawn"] * 10)
    attrs = va.score_blinded(key, _answer(tmp_path, dict.fromkeys(names, "real"))).attrs
    assert attrs["accuracy"] == 0.75
    assert attrs["p_value"] > 0.5
    assert attrs["fisher_p"] == 1
    assert attrs["sentence"].startswith("No sign")
    only = va.score_blinded(key, _answer(tmp_path, {names[0]: "real"})).attrs
    assert only["p_value"] is None


def test_commands(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    done = CliRunner().invoke(app, ["judge", str(collection), "--blinded", str(out), "--n", "3", "--part", "all"])
    assert done.exit_code == 0, done.output
    assert len(_alike(out)) == 6
    answers = _answer(tmp_path, {name: row["truth"] for name, row in _key(out).items()})
    done = CliRunner().invoke(app, ["judge", "--key", str(out / "key.csv"), "--answers", str(answers)])
    assert done.exit_code == 0, done.output
    assert "6 of 6 right" in done.stdout
    assert "real: 3 said real, 0 said drawn" in done.stdout
    for args, message in [
        ([], "give a store to judge"),
        (["--key", "k.csv"], "belong together"),
        ([str(collection), "--key", "k.csv", "--answers", "a.csv"], "need no store"),
        ([str(collection), "--blinded", str(tmp_path / "b"), "--out", "o"], "--out is for tables"),
    ]:
        done = CliRunner().invoke(app, ["judge", *args])
        assert isinstance(done.exception, UsageError)
        assert message in str(done.exception)


def test_refusals(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with pytest.raises(UsageError, match="Did you mean 'draws'"):
        va.blinded_set(collection, "vae", out, kind="draw")
    with pytest.raises(UsageError, match="give 1 or more"):
        va.blinded_set(collection, "vae", out, n_real=0)
    with pytest.raises(UsageError, match="autoencoder"):
        va.blinded_set(collection, "ae", out)
    with pytest.raises(NoInputError, match="the set needs 80"):
        va.blinded_set(collection, "vae", out, n_real=40, n_drawn=40, kind="reconstructions", part="all")
    assert not out.exists()
    two = create_store(random_patterns_dataset({"sample": 20}, {"channel": 2, "y": 12, "x": 13}), tmp_path / "2.zarr")
    train(two, config=TINY_TRAINING.replace(objective=TINY_TRAINING.objective.replace(target="self").to_attrs()))
    with pytest.raises(UsageError, match=r"samples of 2 channels .* are no pictures"):
        va.blinded_set(two, "vae", out)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ExistsError, match="not empty"):
        va.blinded_set(collection, "vae", out)


def test_refused_answers(tmp_path: Path) -> None:
    key, names = _write_key(tmp_path, ["real", "drawn"])
    with pytest.raises(NoInputError, match="no file"):
        va.score_blinded(key, tmp_path / "none.csv")
    for answers, message in [
        ({"x.png": "real"}, "names 'x.png'"),
        ({names[0]: "fake"}, "says 'fake'"),
        ({names[0]: ""}, "holds no answer"),
    ]:
        with pytest.raises(DataError, match=message):
            va.score_blinded(key, _answer(tmp_path, answers))
    twice = tmp_path / "twice.csv"
    twice.write_text(f"name,answer\n{names[0]},real\n{names[0]},drawn\n")
    with pytest.raises(DataError, match="twice"):
        va.score_blinded(key, twice)
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("name,said\n")
    with pytest.raises(DataError, match="lacks the column 'answer'; it has name, said"):
        va.score_blinded(key, lacking)
