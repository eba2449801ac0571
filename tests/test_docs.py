"""What the guides show in Python runs as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (
    "anndata",
    "hyperspy",
    "ome-zarr",
    "own-files",
    "losses",
    "second-stage",
    "several-scans",
    "copies",
    "sharing",
    "other-languages",
    "own-parts",
    "meaning",
    "crystals",
    "troubleshooting",
)
NEEDED = {
    "anndata": "anndata",
    "crystals": "kikuchipy",
    "hyperspy": "hyperspy",
}  # packages that a page uses and the base install lacks


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.filterwarnings("ignore:Object at model is not recognized")
@pytest.mark.parametrize("page", PAGES)
def test_python_of_a_guide(
    page: str,
    trained_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if page in NEEDED:
        pytest.importorskip(
            NEEDED[page], reason=f"{page}.md needs {NEEDED[page]}, which is not installed"
        )
    if page == "crystals":
        request.getfixturevalue("without_compiling")
    for name in ("a", "b", "scan"):
        shutil.copytree(trained_store, tmp_path / "guide" / "stores" / f"{name}.zarr")
    monkeypatch.chdir(tmp_path / "guide")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    assert blocks
    known: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), known)
