"""A set for a reader: nothing tells real from drawn but what they show, the key is apart, and scores are right."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom

import vaearr as va
from vaearr.config import PreprocessConfig
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError
from vaearr.store import create_store, open_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset
from .test_judge import volumes  # noqa: F401  # a fixture

SET = {"n_real": 5, "n_drawn": 4, "part": "all"}
SELF = TINY_TRAINING.objective.replace(target="self").to_attrs()


def _key(out: Path) -> dict[str, dict[str, str]]:
    with (out / "key.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _numbers(out: Path) -> list[int]:
    return [int(re.findall(r"\d+", row["origin"])[0]) for row in _key(out).values()]


def _alike(out: Path) -> list[Path]:
    """The reader's files, after what can be seen from outside was compared."""
    files = sorted((out / "images").iterdir())
    stats = [path.stat() for path in files]
    assert len({(stat.st_size, stat.st_mtime_ns) for stat in stats}) == 1
    changed = [stat.st_ctime_ns for stat in stats]
    assert changed == sorted(changed)  # written in the order of the random names
    assert all(re.fullmatch(r"[0-9a-f]{6}\.(png|nii)", path.name) for path in files)
    return files


def _grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image).astype(int)


def test_images(collection: Path, tmp_path: Path) -> None:
    for name, seed in (("set", 4), ("again", 4), ("other", 5)):
        found = va.blinded_set(collection, "vae", tmp_path / name, seed=seed, **SET)
    files, key = _alike(tmp_path / "set"), _key(tmp_path / "set")
    assert [row["truth"] for row in key.values()].count("real") == 5
    assert found["name"].values.tolist() == list(_key(tmp_path / "other"))
    stored = open_store(collection, chunks=None)["patterns"].values
    drawn = va.sample_prior(collection, n_samples=4, seed=4)["decoded"].values
    for path, number in zip(files, _numbers(tmp_path / "set"), strict=True):
        with Image.open(path) as image:
            assert (image.mode, image.size, image.info) == ("RGB", (13, 12), {})
            values = np.moveaxis(np.asarray(image), -1, 0)
        want = stored[number] if key[path.name]["truth"] == "real" else np.clip(np.rint(drawn[number]), 0, 255)
        np.testing.assert_allclose(values, want, atol=1)
    assert (tmp_path / "again" / "key.csv").read_bytes() == (tmp_path / "set" / "key.csv").read_bytes()
    assert not set(_key(tmp_path / "other")) & set(key)
    assert (tmp_path / "set" / "answers.csv").read_text().splitlines()[1] == f"{files[0].name},"


def test_samples_in_other_units_get_one_scale(trained_template: Path, tmp_path: Path) -> None:
    va.blinded_set(trained_template, "vae", tmp_path / "set", **SET)  # z-scored patterns: draws have no stored scale
    key = _key(tmp_path / "set")
    real = np.concatenate([_grey(p).ravel() for p in _alike(tmp_path / "set") if key[p.name]["truth"] == "real"])
    assert (real.min(), real.max()) == (0, 255)
    assert 0.002 < (real == 255).mean() < 0.02


def test_whole_numbers_show_no_gaps(tmp_path: Path) -> None:
    """Real samples of few levels: what is drawn has no others."""
    ds = random_patterns_dataset({"sample": 20}, {"y": 12, "x": 13}, dtype="uint16")
    store = create_store(ds.assign(patterns=ds["patterns"] // 6000 + 100), tmp_path / "few.zarr")
    plain = PreprocessConfig(static_background="subtract", normalise="none").to_attrs()
    va.train(store, config=TINY_TRAINING.replace(preprocess=plain, objective=SELF, epochs=1))
    va.blinded_set(store, "vae", tmp_path / "set", **SET)
    key, levels = _key(tmp_path / "set"), {"real": set[int](), "drawn": set[int]()}
    for path in _alike(tmp_path / "set"):
        levels[key[path.name]["truth"]] |= set(np.unique(_grey(path)).tolist())
    assert len(levels["real"]) <= 11
    assert levels["drawn"] <= levels["real"]


def test_volumes(volumes: Path, tmp_path: Path) -> None:  # noqa: F811
    nib = pytest.importorskip("nibabel")
    va.blinded_set(volumes, "vae", tmp_path / "set", n_real=3, n_drawn=2, part="all")
    files = _alike(tmp_path / "set")
    images = [nib.load(path) for path in files]
    assert {(image.shape, str(image.get_data_dtype())) for image in images} == {((22, 20, 18), "int16")}
    assert len({path.read_bytes()[:352] for path in files}) == 1  # the whole header
    assert max(int(np.asarray(image.dataobj).max()) for image in images) == 4095


def _scored(folder: Path, truths: list[str], answers: list[str]) -> dict[str, object]:
    names = [f"{i:06x}.png" for i in range(len(truths))]
    for file, header, values in (("key.csv", "name,truth,origin", truths), ("answers.csv", "name,answer", answers)):
        rows = [f"{name},{value}{',x' * (file == 'key.csv')}" for name, value in zip(names, values, strict=False)]
        (folder / file).write_text("\n".join([header, *rows]) + "\n")
    found = va.score_blinded(folder / "key.csv", folder / "answers.csv")
    return found.attrs | {"confusion": found["confusion"].values.tolist()}


def test_score(tmp_path: Path) -> None:
    said = ["real"] * 9 + ["drawn"] + [" Drawn "] * 7 + ["real"] * 2 + [""]
    found = _scored(tmp_path, ["real"] * 10 + ["drawn"] * 10, said)
    assert found["confusion"] == [[9, 1], [2, 7]]
    assert (found["n"], found["n_unanswered"], found["accuracy"], found["chance"]) == (19, 1, 16 / 19, 10 / 19)
    p, z = 16 / 19, 1.959964
    centre, half = p + z**2 / 38, z * np.sqrt(p * (1 - p) / 19 + z**2 / (4 * 19**2))
    assert found["low"] == pytest.approx((centre - half) / (1 + z**2 / 19), rel=1e-5)
    assert found["high"] == pytest.approx((centre + half) / (1 + z**2 / 19), rel=1e-5)
    assert found["p_value"] == pytest.approx(binom.sf(15, 19, 10 / 19))
    assert str(found["sentence"]).startswith("The reader tells real from drawn: 16 of 19 right, 84%")
    same = _scored(tmp_path, ["real"] * 30 + ["drawn"] * 10, ["real"] * 40)  # who always says the same tells nothing
    assert (same["accuracy"], same["fisher_p"]) == (0.75, 1)
    assert str(same["sentence"]).startswith("No sign")
    assert _scored(tmp_path, ["real"] * 30 + ["drawn"] * 10, ["real"])["p_value"] is None


def test_refusals(collection: Path, tmp_path: Path) -> None:
    out, two = tmp_path / "set", random_patterns_dataset({"sample": 20}, {"channel": 2, "y": 12, "x": 13})
    va.train(create_store(two, tmp_path / "2.zarr"), config=TINY_TRAINING.replace(objective=SELF, epochs=1))
    for store, run, how, error, message in (
        (collection, "vae", {"n_real": 0}, UsageError, "give 1 or more"),
        (collection, "ae", {}, UsageError, "autoencoder"),
        (collection, "vae", {"n_real": 80, "part": "all"}, NoInputError, "the set needs 80"),
        (tmp_path / "2.zarr", "vae", {}, UsageError, r"samples of 2 channels .* are no pictures"),
    ):
        with pytest.raises(error, match=message):
            va.blinded_set(store, run, out, **how)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ExistsError, match="not empty"):
        va.blinded_set(collection, "vae", out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,answer\nx.png,real\n", "names 'x.png'"),
        ("name,answer\na.png,fake\n", "says 'fake'"),
        ("name,answer\na.png,\n", "holds no answer"),
        ("name,answer\na.png,real\na.png,drawn\n", "twice"),
        ("name,said\n", "lacks the column 'answer'; it has name, said"),
    ],
)
def test_refused_answers(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "key.csv").write_text("name,truth,origin\na.png,real,x\nb.png,drawn,y\n")
    (tmp_path / "answers.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        va.score_blinded(tmp_path / "key.csv", tmp_path / "answers.csv")
    with pytest.raises(NoInputError, match="no file"):
        va.score_blinded(tmp_path / "key.csv", tmp_path / "none.csv")
