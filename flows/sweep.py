"""Many trainings of one store, compared: latent sizes, betas, regions."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from vaearr.config import AssociateConfig, Config, RoiConfig, TrainConfig, resolved
from vaearr.errors import NoInputError, RoiError, TrainingError, UsageError, VaearrError
from vaearr.names import is_valid_name

from .running import kept_flow, place, progress, step, tell
from .showing import picture, store_key, table, text
from .steps import encode_flow, train_step

WHOLE = "all"  # name of the region where none is given
PASSED_OVER = (RoiError, TrainingError, NoInputError, UsageError)  # of one combination; the others go on


class SweepConfig(Config):
    """Which trainings: every combination of a region, a latent size and a beta."""

    latent_dims: tuple[int, ...] = Field(
        default=(4, 8, 16, 32), min_length=1, description="numbers of latent dimensions"
    )
    betas: tuple[float, ...] = Field(default=(1.0,), min_length=1, description="weights of the KL divergence")
    rois: dict[str, RoiConfig] = Field(
        default_factory=dict, description="name -> conditions; empty = that of the run 'vae', else all measured points"
    )
    name: str = Field(default="sweep", description="what the names of all runs begin with")
    psnr: bool = Field(default=True, description="also reconstruct the validation points and measure PSNR (and SSIM)")
    associate: bool = Field(
        default=True, description="also associate the latents with band contrast, elements and phases"
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        for name in (self.name, *self.rois):
            if not is_valid_name(name):
                raise ValueError(f"{name!r} must be letters, digits and _ and start with a letter")
        if min(self.latent_dims) < 1 or min(self.betas) < 0:
            raise ValueError("latent_dims must be 1 or more, betas 0 or more")
        return self

    def combinations(self) -> list[tuple[str, str, int, float]]:
        """(name of the run, region, latent size, beta) of each training; the same settings give the same names."""
        regions = tuple(self.rois) or (WHOLE,)
        return [
            (run_name_of(self.name, region if self.rois else "", size, beta), region, size, beta)
            for region, beta, size in itertools.product(regions, dict.fromkeys(self.betas), sorted({*self.latent_dims}))
        ]


def run_name_of(name: str, region: str, latent_dim: int, beta: float) -> str:
    """Such as `sweep_l16_b0p5`, with a region `sweep_grain_l16_b0p5`."""
    number = repr(beta).removesuffix(".0").replace(".", "p").replace("e-", "em").replace("e+", "e")
    return "_".join(filter(None, (name, region, f"l{latent_dim}", f"b{number}")))


@step("score")
def score_step(store: Path, run: str, config: SweepConfig) -> dict[str, Any]:
    """The numbers of one run, from what is in the store."""
    from vaearr.association import associate_store
    from vaearr.run.reconstruct import reconstruct_store
    from vaearr.run.statistics import score_run

    row = score_run(store, run)
    if config.psnr:
        made = reconstruct_store(store, run=run, part="validation", say=tell)
        means = made["summary"].sel(part="validation", statistic="mean")
        row |= {str(m): float(means.sel(metric=m)) for m in made["metric"].values if str(m) in ("psnr", "ssim")}
    if config.associate:
        try:
            row["strongest"] = _strongest(associate_store(store, AssociateConfig(run=run)))
        except NoInputError:
            row["strongest"] = ""  # no maps to compare with
    return row


def _strongest(table: Any) -> str:
    """The strongest association of a table in words, by its first metric, of each target."""
    from vaearr.association import ranking

    values = table["association"]
    metric = str(values["metric"].values[0])
    parts = []
    for target in map(str, values["target"].values):
        best = ranking(values, metric, target, 1)
        if best.sizes["rank"]:
            parts.append(f"{target}: latent {best['latent'].values[0]} ({float(best['value'][0]):+.2f})")
    return f"{metric} {', '.join(parts)}" if parts else ""


@step("compare")
def compare_step(
    store: Path, config: SweepConfig, rows: list[dict[str, Any]], failed: dict[str, str]
) -> dict[str, Any]:
    """Write the table beside the store, as CSV and JSON, and say what is recommended for each region."""
    from vaearr.provenance import as_json
    from vaearr.run.statistics import recommend
    from vaearr.store import beside, check_store
    from vaearr.store.commit import writing
    from vaearr.store.folders import replace_file

    regions = list(dict.fromkeys(row["region"] for row in rows))
    chosen = {region: recommend([row for row in rows if row["region"] == region]) for region in regions}
    for row in rows:
        row["recommended"] = row["run"] == chosen[row["region"]]["run"]
    path = check_store(store)
    folder = beside(path).with_name(f"{path.name.removesuffix('.zarr')}.sweeps")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_json(row) for row in rows)
    record = {"store": path.name, "config": config.to_attrs(), "runs": rows, "failed": failed, "rule": RULE,
              "recommended": {region: row["latent_dim"] for region, row in chosen.items()}}  # fmt: skip
    with writing(folder):
        folder.mkdir(exist_ok=True)
        replace_file(folder / f"{config.name}.csv", lines.getvalue().encode())
        replace_file(folder / f"{config.name}.json", json.dumps(as_json(record), indent=2).encode())
    words = [
        f"{region}: {row['latent_dim']} latent dimensions are recommended (run {row['run']!r}, {row['n_active']} "
        f"active, held-out ELBO {row['elbo']:.1f} nats per sample)"
        for region, row in chosen.items()
    ]
    for line in (*words, f"table: {folder / f'{config.name}.csv'}"):
        tell(line)
    key = store_key("sweep", path, config.name)
    table(key, rows, f"sweep {config.name!r} of {path.name}; {RULE}")
    text(f"{key}-words", "\n\n".join([*words, *(f"failed: {k}: {v}" for k, v in failed.items())]), "recommended")
    picture(store, f"{key}-elbo", lambda: elbo(rows), "held-out ELBO over latent dimensions")
    return {"store": place(store), "file": str(folder / f"{config.name}.csv"), "table": as_json(rows)}


RULE = (
    "recommended: the fewest latent dimensions whose held-out ELBO is within one standard error of the best; the "
    "standard error is that of means over validation blocks"
)


def elbo(rows: list[dict[str, Any]]) -> Any:
    """Held-out ELBO with its standard error, a line for each region and beta."""
    import pandas as pd

    from vaearr.views import view

    table = pd.DataFrame(rows)[["region", "beta", "latent_dim", "elbo", "elbo_se"]].fillna({"elbo_se": 0.0})
    return view(table.to_xarray(), kind="sweep")


@kept_flow(name="sweep")
def sweep_flow(
    store: Path, sweep: SweepConfig = SweepConfig(), train: TrainConfig = TrainConfig(), overwrite: bool = False
) -> dict[str, Any]:
    """Train a run for each combination of region, latent size and beta, compare them; returns the table.

    Each run is encoded and scored on its validation points: ELBO, active dimensions, explained variance, PSNR, its
    strongest associations. Recommended are the fewest latent dimensions whose held-out ELBO is within one standard
    error of the best, for each region. Runs that are complete are not trained again. A combination that cannot be
    trained (such as a region that is too small) is told and the others go on; the flow then fails at its end.

    Args:
        store: zarr store, as made by ingest
        sweep: which combinations
        train: everything else that decides the trainings
        overwrite: replace runs of these names that were trained otherwise
    """
    combinations = sweep.combinations()
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with progress("runs", store_key("sweep-progress", store, sweep.name)) as show:
        for done, (run, region, size, beta) in enumerate(combinations, 1):
            settings = resolved(TrainConfig, train, {"latent_dim": size, "beta": beta})
            try:
                train_step(store, run, sweep.rois.get(region), settings, overwrite)
                encode_flow.step(store, run, overwrite=overwrite)
                rows.append({"region": region, **score_step(store, run, sweep)})
            except PASSED_OVER as error:
                failed[run] = str(error)
                tell(f"run {run!r} failed: {error}")
            show(done, len(combinations))
    if not rows:
        raise TrainingError(f"none of {len(combinations)} runs could be made: {next(iter(failed.values()))}")
    made = compare_step(store, sweep, rows, failed)
    if failed:
        raise VaearrError(f"{len(failed)} of {len(combinations)} runs failed: {', '.join(failed)}; see {made['file']}")
    return made
