"""Many scans, each through the whole line, on the processes of this machine or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from vaearr.computing import check_where, connected
from vaearr.config import (
    AssociateConfig,
    ClusterConfig,
    Config,
    EmbedConfig,
    EncodeConfig,
    IngestConfig,
    ReportConfig,
    RoiConfig,
    TrainConfig,
)
from vaearr.errors import UsageError, VaearrError
from vaearr.names import DEFAULT_RUN
from vaearr.run.train import check_extras
from vaearr.store import as_url

from .running import kept_flow, plainly, progress, tell
from .showing import key_of, table
from .steps import TESTED, analyse_scan


class Scan(Config):
    """One scan: where it is, where its store goes, how it is read."""

    source: Path = Field(description="file or folder with the patterns")
    store: Path = Field(description="path of its zarr store")
    ingest: IngestConfig = Field(default=IngestConfig(), description="how it is read")
    roi: RoiConfig | None = Field(default=None, description="points to look at; none = all that were measured")


Result = dict[str, str]  # of one scan: store, state, and its report or its error


def analysed(scan: Scan, settings: dict[str, Any]) -> Result:
    """One scan through the whole line; what goes wrong is returned, so that it is told and the others go on."""
    try:
        made = analyse_scan.fn(scan.source, scan.store, ingest=scan.ingest, roi=scan.roi, **settings)
    except Exception as error:  # of one scan: of whatever kind it is, the others go on
        failed = _failed(scan, error)
        tell(f"{scan.store}: {failed['error']}")
        return failed
    return {
        "source": str(scan.source),
        "store": str(scan.store),
        "state": "complete",
        "report": made["page"],
        "error": "",
    }


def _failed(scan: Scan, error: Exception) -> Result:
    said = f"{type(error).__name__}: {error}"
    return {"source": str(scan.source), "store": str(scan.store), "state": "failed", "report": "", "error": said}


@kept_flow(name="analyse-many")
def analyse_many(
    scans: list[Scan],
    run: str = DEFAULT_RUN,
    train: TrainConfig = TrainConfig(),
    encode: EncodeConfig = EncodeConfig(),
    embed: EmbedConfig = EmbedConfig(),
    cluster: ClusterConfig = ClusterConfig(),
    associate: AssociateConfig = TESTED,
    report: ReportConfig = ReportConfig(),
    overwrite: bool = False,
    processes: int = 1,
    dask: str | None = None,
) -> list[dict[str, str]]:
    """Take many scans through the whole line, side by side; returns a row for each: state, report, error.

    A scan that fails does not stop the others; the flow fails at its end and names those that did. The same call again
    goes on with what is not complete.

    Args:
        scans: source, store and reading of each
        run: name of the run in all stores
        train: everything that decides the trainings
        encode: how latents are written
        embed: the decomposition beside the latents
        cluster: how points are grouped
        associate: which metrics against which maps
        report: what the pages show
        overwrite: replace results that are there but were made otherwise
        processes: scans at a time, each in a process of this machine; 1 = one after the other
        dask: Dask workers that take the scans instead: tcp://host:8786, a scheduler file, or local:4 on this machine
    """
    _check(scans, processes)
    check_extras(train)
    check_where(dask)
    settings = {"run": run, "train": train, "encode": encode, "embed": embed, "cluster": cluster}
    settings |= {"associate": associate, "report": report, "overwrite": overwrite}
    results: dict[int, Result] = {}
    with progress("scans", key_of("analyse-many-progress")) as show:
        for number, found in _each(scans, settings, processes, dask):
            results[number] = found
            show(len(results), len(scans))
    rows = [results[number] for number in range(len(scans))]
    table(key_of("analyse-many"), rows, "scans")
    failed = [row["store"] for row in rows if row["state"] == "failed"]
    for row in rows:
        tell(f"{row['store']}: {row['state']}{': ' + row['error'] if row['error'] else ''}")
    if failed:
        raise VaearrError(f"{len(failed)} of {len(rows)} scans failed: {', '.join(failed)}")
    return rows


def _check(scans: Sequence[Scan], processes: int) -> None:
    stores = [as_url(scan.store) or str(scan.store.expanduser().resolve()) for scan in scans]
    twice = sorted({store for store in stores if stores.count(store) > 1})
    if not scans:
        raise UsageError("scans is empty; give a source and a store for each scan.")
    if twice:
        raise UsageError(f"{twice[0]} is named for more than one scan; give each a store of its own.")
    if processes < 1:
        raise UsageError(f"processes is {processes}; it must be 1 or more.")


def _each(
    scans: Sequence[Scan], settings: dict[str, Any], processes: int, dask: str | None
) -> Iterator[tuple[int, Result]]:
    """(number, result) of each scan, as they come: here, in processes of this machine, or on Dask workers."""
    if not dask and processes == 1:
        yield from ((number, analysed(scan, settings)) for number, scan in enumerate(scans))
        return
    with _pool(processes, dask) as submit:
        made = {submit(_in_another_process, scan.to_attrs(), settings): i for i, scan in enumerate(scans)}
        for future in as_completed(made):
            number = made[future]
            try:
                found, news = future.result()
            except Exception as error:  # a process or worker that died with a scan is a failure of this scan
                found, news = _failed(scans[number], error), []
            for line in news:
                tell(f"{scans[number].store.name}: {line}")
            yield number, found


@contextmanager
def _pool(processes: int, dask: str | None) -> Iterator[Callable[..., Future[Any]]]:
    """`submit(function, …) -> Future`, on fresh processes of this machine or on Dask workers."""
    if dask is None:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool.submit
        return
    with connected(dask) as client:
        assert client is not None
        yield client.get_executor(pure=False).submit


def _in_another_process(scan: dict[str, Any], settings: dict[str, Any]) -> tuple[Result, list[str]]:
    """Where nothing is recorded: the result, and the news."""
    news: list[str] = []
    with plainly(news.append):
        return analysed(Scan.from_attrs(scan), settings), news
