"""Commands that show what a trained model makes of data and of latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaearr.cli.common import (
    BoxX,
    BoxY,
    BoxZ,
    ChosenRun,
    Condition,
    Overwrite,
    RunName,
    Sets,
    Settings,
    Store,
    app,
    bar,
    region,
    say,
    settings_from,
    sides,
)
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

if TYPE_CHECKING:
    import xarray as xr

Out = Annotated[Path | None, typer.Option(help="folder to write pictures and tables into")]
FILE_MOST = 1000  # single pictures of draws


@contextmanager
def _folder(out: Path | None) -> Iterator[Path | None]:
    """Where files go until all are there; told at the end."""
    from vaearr.store.folders import staged

    if out is None:
        yield None
        return
    with staged(out) as folder:
        yield folder
    say(f"files are in {out}")


@app.command()
def reconstruct(
    store: Store,
    run: ChosenRun = None,
    file: Annotated[list[Path] | None, typer.Option(help="single file instead of the store's samples; repeat")] = None,
    part: Annotated[str | None, typer.Option(help="all, train or validation points of the region")] = None,
    x: BoxX = None,
    y: BoxY = None,
    z: BoxZ = None,
    where: Condition = None,
    units: Annotated[str | None, typer.Option(help="stored (default) or preprocessed")] = None,
    data_range: Annotated[str | None, typer.Option(help="of PSNR and SSIM: a number, dtype or sample")] = None,
    variable: Annotated[bool, typer.Option("--variable", help="also write the reconstructions into the store")] = False,
    name: Annotated[str | None, typer.Option(help="table and variable to write; default: reconstruction")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps")] = None,
    window: Annotated[str | None, typer.Option(help="AxB[xC] pixels: window by window, for large samples")] = None,
    overlap: Annotated[float | None, typer.Option(help="of windows, share of their length; default 0.25")] = None,
    lpips_weights: Annotated[Path | None, typer.Option(help="weights of a feature network, to measure LPIPS")] = None,
    lpips_linear: Annotated[Path | None, typer.Option(help="weights of LPIPS on that network")] = None,
    out: Out = None,
    files: Annotated[bool, typer.Option("--files", help="also write each reconstruction as a file into --out")] = False,
    binarise: Annotated[float | None, typer.Option(help="value from which on binary.png in --out is white")] = None,
    dtype: Annotated[str | None, typer.Option(help="of NIfTI and .npy: float32 (default) or source")] = None,
    overwrite: Overwrite = False,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Reconstruct a store's samples, or single files, and judge them: PSNR, SSIM, MSE, MAE, compression.

    Without --x, --y, --z, --where: the region of the run. --out writes reconstruction.png, metrics.csv, with --binarise
    binary.png, of volumes slices.png and slices.html; --files or --file also the folder files: PNG, NIfTI with its
    affine, or .npy.
    """
    from vaearr.inference import ReconstructConfig, reconstruct_files, reconstruct_store
    from vaearr.inference.summary import file_lines, metrics_csv, reconstruction_lines

    if binarise is not None and out is None:
        raise UsageError("--binarise is of a picture; give its folder with --out.")
    if files and out is None:
        raise UsageError("--files needs a folder, so give one with --out.")
    if dtype is not None and not (out is not None and (files or file)):
        raise UsageError("--dtype is of written files; give --out FOLDER, with --files or --file, or leave it out.")
    settings = settings_from(ReconstructConfig, config, sets).replace(
        run=run,
        part=part,
        roi=region(x, y, z, where),
        units=units,
        data_range=_number(data_range),
        out="variable" if variable else None,
        name=name,
        device=device,
        window=sides(window, "--window", int),
        overlap=overlap,
        lpips_weights=lpips_weights,
        lpips_linear=lpips_linear,
    )
    kept: Any = dtype or "float32"  # checked there
    with _folder(out) as folder:
        inner = folder / "files" if folder and (files or file) else None
        with bar("reconstructing") as progress:
            if file:
                found = reconstruct_files(store, file, out=inner, dtype=kept, config=settings, on_file=progress)
            else:
                found = reconstruct_store(
                    store, config=settings, files=inner, dtype=kept, overwrite=overwrite, say=say, on_block=progress
                )
        if folder:
            (folder / "metrics.csv").write_text(metrics_csv(found), encoding="utf-8")
            _write_figures(found, folder, binarise)
    for line in (*(file_lines(found) if file else ()), *reconstruction_lines(found)):
        typer.echo(line)


def _write_figures(found: xr.Dataset, folder: Path, binarise: float | None) -> None:
    from vaearr.views import save
    from vaearr.views.volumes import is_volume, volume_page

    if not found.sizes.get("example"):
        return
    save(found, folder / "reconstruction.png")
    if binarise is not None:
        save(found, folder / "binary.png", threshold=binarise)
    if is_volume(found["input"]):
        save(found, folder / "slices.png", kind="volumes")
        (folder / "slices.html").write_text(volume_page(found), encoding="utf-8")


def _number(text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


@app.command()
def sample(
    store: Store,
    run: RunName = DEFAULT_RUN,
    count: Annotated[int, typer.Option("--n", help="number of draws")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="seed of the draws")] = 0,
    source: Annotated[str, typer.Option(help="prior, or fitted: the Gaussian of the run's own latents")] = "prior",
    out: Out = None,
) -> None:
    """Draw latents, decode them, and print the vectors.

    --out writes samples.png, vectors.png with the latents beside the pictures, one picture for each draw, and z.csv
    (z.npy of spatial latents).
    """
    from vaearr.inference import sample_prior

    with _folder(out) as folder:
        found = sample_prior(store, run, count, seed, source=source)  # type: ignore[arg-type]  # checked there
        if folder:
            _write_draws(found, folder)
    for warning in found.attrs["warnings"]:
        say(f"warning: {warning}")
    for number, z in zip(found["sample"].values, found["latents"].values, strict=True):
        if z.ndim == 1:
            typer.echo(f"{number}: {' '.join(f'{value:.4g}' for value in z)}")
        else:  # of spatial latents the size of each channel
            sizes = " ".join(f"{value:.4g}" for value in z.reshape(len(z), -1).std(1))
            typer.echo(f"{number}: {' x '.join(map(str, z.shape))}, standard deviation of each channel {sizes}")


def _write_draws(found: xr.Dataset, folder: Path) -> None:
    from vaearr.views import save
    from vaearr.views.pictures import save_pictures

    save(found, folder / "samples.png")
    save(found, folder / "vectors.png", kind="vectors")
    save_pictures(found["decoded"].isel(sample=slice(FILE_MOST)), folder, "sample")
    _write_latents(found["latents"], folder)


def _write_latents(z: xr.DataArray, folder: Path) -> None:
    """Latent vectors as the table z.csv, a row for each; spatial latents as the array z.npy."""
    if z.ndim > 2:
        import numpy as np

        np.save(folder / "z.npy", z.values, allow_pickle=False)
        return
    path = folder / "z.csv"
    names = [f"latent_{i}" for i in z["latent"].values]
    rows = [",".join(repr(float(value)) for value in row) for row in z.values]
    path.write_text("\n".join([",".join(names), *rows]) + "\n", encoding="utf-8")


@app.command()
def interpolate(
    store: Store,
    a: Annotated[
        str | None, typer.Option("--from", help="X:Y[:Z] of a scan point in coordinate units, or number of a sample")
    ] = None,
    b: Annotated[str | None, typer.Option("--to", help="where to go, given like --from")] = None,
    a_file: Annotated[Path | None, typer.Option("--from-file", help="a file as the sample to begin with")] = None,
    b_file: Annotated[Path | None, typer.Option("--to-file", help="a file as the sample to end with")] = None,
    run: RunName = DEFAULT_RUN,
    steps: Annotated[int, typer.Option(help="pictures on the way, both ends included")] = 9,
    method: Annotated[str, typer.Option(help="lerp or slerp")] = "lerp",
    out: Out = None,
) -> None:
    """Decode the way between the latents of two samples, each of the store or a file of its own.

    --out writes interpolation.png, vectors.png with the latents beside the pictures, interpolation.gif and z.csv (z.npy
    of spatial latents).
    """
    from vaearr.inference import interpolate as run_interpolate

    with _folder(out) as folder:
        ends = _end(a, a_file, "--from"), _end(b, b_file, "--to")
        found = run_interpolate(store, run, *ends, steps, method)
        if folder:
            from vaearr.views import save
            from vaearr.views.pictures import frames, save_animation

            save(found, folder / "interpolation.png")
            save(found, folder / "vectors.png", kind="vectors")
            save_animation(frames(found), folder / "interpolation.gif")
            _write_latents(found["latents"], folder)
    typer.echo(f"{method}, {steps} steps, distance of the ends {found.attrs['distance']:.4g}")


def _end(text: str | None, file: Path | None, option: str) -> Any:
    """Where an interpolation begins or ends."""
    if (text is None) == (file is None):
        raise UsageError(f"give either {option} or {option}-file.")
    return file if text is None else point_of(text, option)


def point_of(text: str, option: str) -> Any:
    """`X:Y`, `X:Y:Z` or the number of a sample."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) == 1:
        return int(values[0]) if values[0].is_integer() else values[0]
    if len(values) not in (2, 3):
        raise UsageError(f"{option} {text!r} is not X:Y, X:Y:Z or the number of a sample.")
    return dict(zip("xyz", values, strict=False))


@app.command()
def stats(store: Store, run: RunName = DEFAULT_RUN, out: Out = None) -> None:
    """Statistics of a run's latents: mean, spread, KL, active units, aggregate posterior beside the prior.

    They are kept in the store as the run's table latent_statistics; --out writes latent_statistics.png.
    """
    from vaearr.inference import latent_statistics

    with _folder(out) as folder:
        found = latent_statistics(store, run, write=True)
        if folder:
            from vaearr.views import save

            save(found, folder / "latent_statistics.png", kind="statistics")
    attrs = found.attrs
    typer.echo(
        f"run {run!r}: {attrs['n']} samples, {attrs['n_active']} of {found.sizes['latent']} latents active, KL "
        f"{attrs['kl_total']:.4g} nats per sample, largest correlation {attrs['largest_correlation']:.2f}"
    )
    columns = ("mean", "std", "min", "max", "logvar_mean", "logvar_std", "kl", "aggregate_std", "aggregate_kl")
    typer.echo("latent " + " ".join(f"{name:>13}" for name in columns))
    for i, latent in enumerate(found["latent"].values):
        typer.echo(f"{latent:>6} " + " ".join(f"{float(found[name][i]):>13.4g}" for name in columns))
    for warning in attrs["warnings"]:
        say(f"warning: {warning}")
