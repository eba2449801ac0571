"""`vaearr settings` and `vaearr doctor`."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

import click
import cloup

from vaearr import config
from vaearr.cli.common import AS_JSON, HELP, command
from vaearr.cli.settings import setting_table
from vaearr.config import ProbeConfig
from vaearr.errors import UsageError, did_you_mean

STEPS: dict[str, type[config.Config]] = {
    "ingest": config.IngestConfig,
    "train": config.TrainConfig,
    "import": config.ImportConfig,
    "encode": config.EncodeConfig,
    "reconstruct": config.ReconstructConfig,
    "associate": config.AssociateConfig,
    "probe": ProbeConfig,
    "cluster": config.ClusterConfig,
}
EXTRAS = {  # extra -> a package of it, what it is for
    "ebsd": ("kikuchipy", "vendor files of EBSD and orientation maps"),
    "monai": ("monai", "autoencoders of volumes, windows, Fréchet distances"),
    "umap": ("umap", "UMAP layouts"),
    "remote": ("obstore", "stores read from S3 or HTTP"),
    "dask": ("distributed", "Dask clusters"),
    "loggers": ("tensorboard", "TensorBoard logs"),
    "parquet": ("pyarrow", "tables as Parquet"),
    "notebooks": ("jupyterlab", "notebooks"),
}


@command("vaearr settings train", "vaearr settings cluster --json", section=HELP)
@cloup.argument("step", required=False, help=f"one of {', '.join(STEPS)}; default: all")
@AS_JSON
def settings(step: str | None, as_json: bool) -> None:
    """List every setting of a step: name, type, default and meaning.

    Each can be given by --set NAME=VALUE, in a file by --config, and as a keyword of the function.
    """
    if step is not None and step not in STEPS:
        raise UsageError(f"there is no step {step!r}.{did_you_mean(step, list(STEPS))}")
    names = [step] if step else list(STEPS)
    tables = {name: setting_table(STEPS[name]) for name in names}
    if as_json:
        click.echo(json.dumps(tables[step] if step else tables, indent=2))
        return
    formatter = click.get_current_context().make_formatter()
    for name, table in tables.items():
        rows = []
        for row in table:
            meaning = row["help"]
            if row["default"] is not None:
                meaning += f" [default: {json.dumps(row['default'], ensure_ascii=False)}]"
            rows.append((f"{row['name']} {row['type']}", meaning))
        formatter.write_heading(name)
        with formatter.indentation():
            formatter.write_dl(rows)
    click.echo(formatter.getvalue().rstrip())


@command("vaearr doctor", section=HELP)
def doctor() -> None:
    """Report versions, device, threads, free disk space and missing extras."""
    import torch

    from vaearr.computing.device import pick_device
    from vaearr.recipe import versions

    click.echo("versions: " + ", ".join(f"{name} {text}" for name, text in versions().items()))
    click.echo(f"system: {platform.platform()}")
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    click.echo(f"device: {device.type} ({name})")
    click.echo(f"threads: {torch.get_num_threads()} of {os.cpu_count()} processors")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    click.echo(f"free disk space here: {free:.1f} GiB")
    for extra, (package, purpose) in EXTRAS.items():
        if find_spec(package) is None:
            click.echo(f'not installed: {purpose}; pip install "vaearr[{extra}]"')
