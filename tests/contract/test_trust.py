"""What a store, a model folder or a checkpoint names is imported and run only where the user trusts
it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from zarr import consolidate_metadata, open_group

import vaearr as va
from vaearr.errors import UntrustedError

from .harness import BAD_DATA, TINY, USAGE, sets, vaearr, zarr
from .test_openings import MOST_OF_A_STORE, opened_stores

STRANGER = """
from pathlib import Path

Path(r"{marker}").write_text("this ran")


def build(*arguments, **options):
    raise RuntimeError("a stranger's network")


def metric(latent, target):
    return 1.0


metric.__name__ = "stranger:metric"
"""
NETWORK = """
from torch import nn


class Flat(nn.Module):
    def __init__(self, input_shape, latent_dim=3):
        super().__init__()
        size = input_shape[0] * input_shape[1] * input_shape[2]
        self.input_shape, self.latent_shape = input_shape, (latent_dim,)
        self.down, self.up = nn.Linear(size, 2 * latent_dim), nn.Linear(latent_dim, size)

    def encode(self, x):
        return self.down(x.flatten(1)).float().chunk(2, 1)

    def decode(self, z, *, logits=False):
        return self.up(z).float().view(-1, *self.input_shape)

    def forward(self, x, *, logits=False):
        mean, logvar = self.encode(x)
        return self.decode(mean), mean, logvar
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that exists once the module `stranger`, which lies in the current folder, was
    imported.
    """
    marker = tmp_path / "marker"
    (tmp_path / "stranger.py").write_text(STRANGER.format(marker=marker))
    (tmp_path / "my_networks.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    for module in ("stranger", "my_networks"):
        sys.modules.pop(module, None)


def rename_model(folder: Path, name: str, options: dict[str, Any]) -> None:
    """Let the config.json of a model folder name another network, with a checksum that fits."""
    file, seal = folder / "config.json", folder / "checksums.sha256"
    before = file.read_bytes()
    record = json.loads(before)
    record["model"] |= {"name": name, "options": options}
    after = json.dumps(record).encode()
    file.write_bytes(after)
    digests = [hashlib.sha256(content).hexdigest() for content in (before, after)]
    seal.write_text(seal.read_text().replace(*digests))


@pytest.fixture(params=["installed", "beside"])
def store(request: pytest.FixtureRequest, marker: Path, trained_template: Path) -> Path:
    """A stranger's store: its run names a class of an installed package, or a module that lies
    beside the store.
    """
    store = shutil.copytree(trained_template, marker.parent / "strange.zarr")
    names: dict[str, tuple[str, dict[str, Any]]] = {
        "installed": ("distributed:LocalCluster", {"preload": [f"open(r'{marker}', 'w').close()"]}),
        "beside": ("stranger:build", {}),
    }
    rename_model(store / "runs" / "vae" / "model", *names[request.param])
    return store


REFUSED = {
    "info": "info {store} --model",
    "encode": "encode {store} --overwrite --precision bfloat16",
    "encode-from": "encode {other} --from {store} --name b",
    "reconstruct": "reconstruct {store}",
    "fidelity": "look fidelity {store}",
    "explore": "explore {store} --save page.html",
    "report": "report {store} --out report",
    "import": "import {other} {store}/runs/vae/model --run b",
    "train-init": "train {other} --run b --init {store}/runs/vae/model",
    "train-init-run": "train {store} --run b --init vae",
    "train-perceptual": "train {other} --run b --set objective.perceptual.run={store}/runs/vae/model",
    "traverse": "look traverse {store}",
    "manifold": "look manifold {store}",
    "path": "look line {store} --point=0:0",
    "prototypes": "look prototypes {store}",
    "interpolate": "look interpolate {store} --a 0:0 --b 2:2",
    "sample": "look sample {store}",
    "layers": "look layers {store} --a 0:0 --b 2:2",
    "flow-encode": "run encode -p store={store} -p overwrite=true -p encode.precision=bfloat16",
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=list(REFUSED))
def test_commands_do_not_load_what_a_store_names(
    line: str, store: Path, scan_template: Path, marker: Path
) -> None:
    other = shutil.copytree(scan_template, marker.parent / "other.zarr")
    arguments = line.format(store=store, other=other).split()
    more = (*TINY, "--epochs", "1") if arguments[0] == "train" else ()
    done = vaearr(*arguments, *more, code=None)
    name = json.loads((store / "runs/vae/model/config.json").read_text())["model"]["name"]
    assert done.code != 0
    assert name in done.err
    assert "would import and run" in done.err
    assert f"--trust {name}" in done.err
    assert not marker.exists()


SHOWN = (
    "info {store}",
    "info {store} --json",
    "verify {store}",
    "cluster {store} --method kmeans --k 3 --name three",
    "associate {store} --overwrite",
    "export {store} files --format csv",
    "look describe {store}",
    "look statistics {store}",
    "look scatter {store} --method pca",
    "look contrast {store}",
)


@pytest.mark.parametrize("line", SHOWN)
def test_commands_that_need_no_network_work(line: str, store: Path, marker: Path) -> None:
    vaearr(*line.format(store=store).split())
    assert not marker.exists()


FUNCTIONS: dict[str, Callable[[Path], Any]] = {
    "load_model": va.load_model,
    "run.model": lambda store: va.load_run(store).model,
    "run.decode": lambda store: va.load_run(store).decode([[0.0, 0.0, 0.0]]),
    "run.encode": lambda store: va.load_run(store).encode(overwrite=True, precision="bfloat16"),
    "run.traverse": lambda store: va.load_run(store).traverse(0),
    "encode": lambda store: va.encode(store, overwrite=True, precision="bfloat16"),
    "encode a Dataset": lambda store: va.encode(
        va.open_store(store), overwrite=True, precision="bfloat16"
    ),
    "reconstruct": lambda store: va.load_run(store).reconstruct(),
    "sample": lambda store: va.load_run(store).sample(),
    "interpolate": lambda store: va.load_run(store).interpolate(
        a={"x": 0, "y": 0}, b={"x": 2, "y": 2}
    ),
    "fidelity": lambda store: va.load_run(store).fidelity(),
    "manifold": lambda store: va.load_run(store).manifold(),
    "report": lambda store: va.load_run(store).report(),
}


@pytest.mark.parametrize("use", FUNCTIONS.values(), ids=list(FUNCTIONS))
def test_functions_do_not_load_what_a_store_names(
    use: Callable[[Path], Any], store: Path, marker: Path
) -> None:
    with pytest.raises(UntrustedError, match="would import and run"):
        use(store)
    assert not marker.exists()


def test_checkpoint_names_are_not_imported(scan_template: Path, marker: Path) -> None:
    store = shutil.copytree(scan_template, marker.parent / "scan.zarr")
    vaearr("train", store, "--epochs", 2, "--set", "checkpoint_every=1", *TINY)
    checkpoint = sorted((store / "runs" / "vae" / "model").rglob("*.safetensors"))[0]
    with safe_open(checkpoint, framework="pt") as file:
        metadata = {
            key: value.replace('"conv"', '"stranger:build"')
            for key, value in file.metadata().items()
        }
    metadata.pop("sha256", None)
    strange = marker.parent / "strange.safetensors"
    save_file(load_file(checkpoint), strange, metadata)
    resume = ("train", store, "--run", "b", "--epochs", 3, "--resume", strange, *TINY)
    assert "stranger:build" in vaearr(*resume, code=USAGE).error
    assert not marker.exists()


def test_a_report_imports_no_stored_names_and_opens_the_store_at_most_twice(
    trained_template: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the metrics that a table names nor the views that variables name are imported."""
    store = shutil.copytree(trained_template, marker.parent / "scan.zarr")
    vaearr("associate", store, "--metric", "stranger:metric", "--overwrite")
    assert marker.exists()
    marker.unlink()
    del sys.modules["stranger"]
    root = open_group(store)
    for name in ("BC", "latents", "grains", "elements", "phase", "patterns"):
        root[name].attrs["kind"] = "stranger:show"
    with warnings.catch_warnings():  # the folders of runs hold files that are no arrays
        warnings.simplefilter("ignore")
        consolidate_metadata(store)
    store = store.rename(store.with_name("renamed.zarr"))  # unknown to this process
    opened = opened_stores(monkeypatch)
    vaearr("report", store)
    assert not marker.exists()
    assert 1 <= opened.count(store) <= MOST_OF_A_STORE
    assert (store.with_name("renamed.reports") / "vae" / "index.html").is_file()


def test_entry_points_beside_a_store_are_not_installed(
    trained_template: Path, marker: Path
) -> None:
    store = shutil.copytree(trained_template, marker.parent / "scan.zarr")
    about = marker.parent / "stranger-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[vaearr.models]\nnice = stranger:build\n")
    rename_model(store / "runs" / "vae" / "model", "nice", {})
    vaearr("encode", store, "--overwrite", "--precision", "bfloat16", code=BAD_DATA)
    assert not marker.exists()


def test_own_network_needs_the_users_word_again(scan_template: Path, marker: Path) -> None:
    store = shutil.copytree(scan_template, marker.parent / "scan.zarr")
    name = "my_networks:Flat"
    plain = sets("device=cpu", "precision=float32", "model.latent_dim=3")
    vaearr("train", store, "--model", name, "--epochs", 1, *plain)
    error = vaearr("encode", store, code=USAGE).error
    assert name in error
    assert f"--trust {name}" in error
    assert name in vaearr("encode", store, "--trust", "my_networks:Other", code=USAGE).error
    assert "my_networks" in vaearr("encode", store, "--trust", "my_networks", code=USAGE).error
    vaearr("encode", store, "--trust", "my_networks:Other", "--trust", name)
    assert zarr(store).latents.notnull().any()
    vaearr("info", store, "--model", "--trust", name)
    vaearr("train", store, "--run", "b", "--model", name, "--init", "vae", "--epochs", 1, *plain)
    run = va.load_run(store, trust=name)
    assert run.reconstruct(examples=2)["psnr"].notnull().any()
    assert va.load_model(store, trust=[name]).latent_shape == (3,)
    trained = va.train(
        store, run="c", model=name, latent_dim=3, epochs=1, device="cpu", precision="float32"
    )
    assert "latents_c" in trained.encode()


def test_settings_file_of_the_user_may_name_her_network(scan_template: Path, marker: Path) -> None:
    store = shutil.copytree(scan_template, marker.parent / "scan.zarr")
    settings = {
        "model": {"name": "my_networks:Flat", "latent_dim": 3},
        "epochs": 1,
        "device": "cpu",
    }
    file = marker.parent / "settings.json"
    file.write_text(json.dumps(settings))
    vaearr("train", store, "--config", file)
    assert "roi" in zarr(store)
