"""What is installed: packages, the version, the flows."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from .harness import UNAVAILABLE, spawn, vaearr


def test_flows_beside_a_folder_called_flows(trained_store: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "flows").mkdir(parents=True)
    (project / "flows" / "__init__.py").write_text(
        "raise RuntimeError('this is the project, not vaearr')\n"
    )
    (project / "flows" / "associate.py").write_text("")
    parameters = (
        "-p",
        f"store={trained_store}",
        "-p",
        'associate.metrics=["spearman"]',
        "-p",
        "associate.name=one",
    )
    done = spawn("run", "associate", *parameters, cwd=project)
    assert "latent" in done.out + done.err


PLACES = ("-p", "source=none.h5", "-p", "store=new.zarr")


@pytest.mark.parametrize(
    ("package", "install", "arguments"),
    [
        ("monai", "vaearr[monai]", ["train", "none.zarr", "--set", "model.name=autoencoder-kl"]),
        (
            "monai",
            "vaearr[monai]",
            ["run", "analyse-scan", *PLACES, "-p", "train.model.name=autoencoder-kl"],
        ),
        ("tensorboard", "vaearr[loggers]", ["train", "none.zarr", "--set", 'log=["tensorboard"]']),
        (
            "distributed",
            "vaearr[dask]",
            ["encode", "none.zarr", "--scheduler", "tcp://127.0.0.1:8786"],
        ),
        ("pyarrow", "vaearr[parquet]", ["export", "none.zarr", "out", "--format", "parquet"]),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else value,
)
def test_extras_are_asked_for_before_anything_is_read(
    package: str,
    install: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    done = vaearr(*arguments, code=UNAVAILABLE)
    assert f"{package}, which is not installed" in done.error
    assert f'pip install "{install}"' in done.error
    assert list(tmp_path.iterdir()) == []


def test_version() -> None:
    assert vaearr("--version").out == f"vaearr {importlib.metadata.version('vaearr')}\n"
