"""Settings of a step: each is a keyword of its function and an option of its command, made from the
config's field.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vaearr as va
from vaearr import config as c
from vaearr.config import ProbeConfig
from vaearr.config import keywords as types
from vaearr.errors import UsageError
from vaearr.run import Run

from .harness import TINY, USAGE, attributes, nested, vaearr, zarr

STEPS: dict[str, tuple[Callable[..., Any], type[c.Config]]] = {
    "ingest": (va.ingest, c.IngestConfig),
    "train": (va.train, c.TrainConfig),
    "import": (va.import_model, c.ImportConfig),
    "encode": (Run.encode, c.EncodeConfig),
    "reconstruct": (Run.reconstruct, c.ReconstructConfig),
    "associate": (Run.associate, c.AssociateConfig),
    "probe": (Run.probe, ProbeConfig),
    "cluster": (Run.cluster, c.ClusterConfig),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_setting_is_a_keyword(step: str) -> None:
    """With its type, by parameter or by the type of the keywords, so that editors show them."""
    function, config = STEPS[step]
    parameters = inspect.signature(function).parameters
    (others,) = (p for p in parameters.values() if p.kind is p.VAR_KEYWORD)
    assert others.annotation.startswith("Unpack[")
    keywords = getattr(types, others.annotation[len("Unpack[") : -1]).__optional_keys__
    assert not keywords & set(parameters)
    for name in (*config.model_fields, *config.shortcuts):
        if not (name == "run" and "self" in parameters):
            assert name in {*parameters, *keywords}, name
    required = {name: "nowhere" for name, p in parameters.items() if p.default is p.empty}
    del required[others.name]
    with pytest.raises(UsageError, match=r"has no argument 'confgi'. Did you mean 'config'\?"):
        function(**required, confgi=None)


@pytest.mark.parametrize("step", STEPS)
def test_every_setting_is_listed(step: str) -> None:
    """With its description; those of groups by `group.name`."""
    rows = {row["name"]: row for row in json.loads(vaearr("settings", step, "--json").out)}
    words = " ".join(vaearr("settings", step).out.split())
    for name, field in STEPS[step][1].model_fields.items():
        group = c.group_of(field)
        if group is not None:
            assert all(
                any(row.startswith(f"{name}.{inner}") for row in rows)
                for inner in group.model_fields
            )
            continue
        assert field.description == rows[name]["help"]
        assert f" {name} " in words
        default = field.get_default(call_default_factory=True)
        assert rows[name]["default"] == json.loads(json.dumps(default))


def test_settings_of_all_steps() -> None:
    assert set(json.loads(vaearr("settings", "--json").out)) == set(STEPS)


def test_keywords_do_what_settings_do(
    images_template: Path, trained_store: Path, tmp_path: Path
) -> None:
    pictures = images_template.with_name("pictures")
    ds = va.ingest(pictures, tmp_path / "a.zarr", size=(24, 20), fit="pad")
    assert ds.patterns.shape[-2:] == (24, 20)
    found = va.load_run(trained_store).cluster(name="dense", method="hdbscan", min_cluster_size=30)
    assert int(found["count"].where(found["cluster"].astype(str) != "-1").min()) >= 0
    assert "dense" in zarr(trained_store)
    small = {"options": {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}}
    common = {"epochs": 1, "precision": "float32", "device": "cpu", "seed": 1, "batch_size": 64}
    run = va.train(
        trained_store, run="b", config=c.TrainConfig.from_attrs({"model": small}), latent_dim=2, beta=2.0,
        objective={"target": "self"}, **common,
    )  # fmt: skip
    made = run.manifest["config"]
    assert (
        made["model"]["latent_dim"],
        made["objective"]["beta"],
        made["objective"]["target"],
    ) == (2, 2.0, "self")
    assert made["model"]["options"] == small["options"]
    assert va.encode(trained_store, run="b", batch_size=50).sizes["latent_b"] == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 0}, "a value of 1 or more"),
        ({"latent_dim": "many"}, "model.latent_dim.*: a whole number is expected"),
        ({"bta": 2.0}, "Did you mean 'beta'"),
        ({"objective": {"bta": 2.0}}, "Did you mean 'beta'"),
    ],
)
def test_what_cannot_be_meant_is_told(
    given: dict[str, Any], words: str, trained_template: Path
) -> None:
    with pytest.raises(UsageError, match=re.escape(words) if "Did" in words else words):
        va.train(trained_template, run="b", **given)


@pytest.mark.parametrize("number", ["abc", "1.5", "9" * 400])
def test_odd_numbers_are_one_line(number: str, trained_template: Path) -> None:
    for words in (("--epochs", number), ("--set", f"epochs={number}")):
        assert "epochs" in vaearr("train", trained_template, "--run", "b", *words, code=USAGE).error


def test_settings_by_option(scan_store: Path, tmp_path: Path) -> None:
    """Options and --set replace settings of --config."""
    (tmp_path / "a.json").write_text('{"patience": 3, "epochs": 9}')
    words = (
        "--config",
        tmp_path / "a.json",
        "--epochs",
        2,
        "--set",
        "optimizer=adam",
        "--set",
        "weight_decay=0.5",
    )
    vaearr("train", scan_store, *words, *TINY)
    made = nested(attributes(scan_store, "runs/vae")["config"])
    assert {name: made[name] for name in ("patience", "epochs", "optimizer", "weight_decay")} == {
        "patience": 3, "epochs": 2, "optimizer": "adam", "weight_decay": 0.5,
    }  # fmt: skip


SECTIONS = {
    "Data": ["demo", "ingest", "attach", "info", "list", "verify"],
    "Learn": ["train", "import", "encode", "reconstruct"],
    "Analyse": ["associate", "probe", "cluster"],
    "Look": ["look", "explore", "report"],
    "Share": ["export", "run"],
    "Help": ["settings", "doctor"],
}
LOOKS = {
    *("prototypes", "traverse", "manifold", "line", "scatter", "pairs", "histograms"),
    *(
        "activations",
        "interpolate",
        "sample",
        "statistics",
        "describe",
        "layers",
        "contrast",
        "fidelity",
    ),
}


def test_help_has_a_line_for_each_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """In sections, with complete summaries."""
    monkeypatch.setenv("COLUMNS", "102")
    sections = vaearr("-h").out.split("\n\n")[3:]
    listed = {}
    for section in sections:
        title, *lines = section.strip().splitlines()
        listed[title.removesuffix(":")] = [line.split()[0] for line in lines]
        assert all(line.endswith(".") for line in lines), title
    assert listed == SECTIONS
    lines = vaearr("look", "--help").out.splitlines()
    assert {line.split()[0] for line in lines[lines.index("Commands:") + 1 :]} == LOOKS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings.toml", "epochs = 2\n[objective]\nbetta = 3.0\n"),
        ("settings.yaml", "epochs: 2\nobjective:\n  betta: 3.0\n"),
        ("settings.json", '{"epochs": 2, "objective": {"betta": 3.0}}'),
    ],
)
def test_settings_of_a_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert (
        "no setting 'objective.betta'"
        in vaearr("train", "s.zarr", "--config", tmp_path / name, code=USAGE).error
    )
    (tmp_path / name).write_text("{ = : [")
    form = name.partition(".")[2].upper()
    assert (
        f"it is not {form}"
        in vaearr("train", "s.zarr", "--config", tmp_path / name, code=USAGE).error
    )


def test_completion_in_a_shell() -> None:
    asked = {
        "_VAEARR_COMPLETE": "bash_complete",
        "COMP_WORDS": "vaearr train --la",
        "COMP_CWORD": "2",
    }
    program = Path(sys.executable).with_name("vaearr")
    done = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True)
    assert "--latent-dim" in done.stdout


def test_one_name_stands_for_a_list_of_one(trained_store: Path) -> None:
    run = va.load_run(trained_store)
    table = run.associate("BC", metrics="spearman", name="one")
    assert table.metric.values.tolist() == ["spearman"]
    assert run.cluster("latents", method="kmeans", k=2, name="two").two.max() == 1
