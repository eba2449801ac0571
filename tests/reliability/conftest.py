"""The workshop, and folders at every stage of the work."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.workshop import Workshop

MODULES = (
    "tests.reliability.jobs",
    "tests.reliability.mutations",
    "vaearr.ingestion.attaching",
    "vaearr.ingestion.ingest",
    "vaearr.output.reporting",
    "vaearr.run.analyses",
    "vaearr.run.encode",
    "vaearr.run.keeping",
    "vaearr.run.reconstruct",
    "vaearr.run.train",
    "vaearr.store.verify",
    "vaearr.training",
    "vaearr.views",
    "matplotlib.backends.backend_agg",
    "sklearn.cluster",
    "sklearn.mixture",
    "scipy.stats",
    "PIL.Image",
)


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    """A process that forks a child for each job."""
    made = Workshop(*MODULES)
    yield made
    made.close()


Stage = Callable[[tuple[str, ...]], Path]


@pytest.fixture(scope="session")
def stage(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A folder in which these jobs are done, made once; copy it, never change it."""
    made: dict[tuple[str, ...], Path] = {(): tmp_path_factory.mktemp("nothing")}

    def get(done: tuple[str, ...]) -> Path:
        if done not in made:
            folder = tmp_path_factory.mktemp("stage") / "work"
            shutil.copytree(get(done[:-1]), folder)
            workshop.do(done[-1], folder)
            made[done] = folder
        return made[done]

    return get
