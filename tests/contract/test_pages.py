"""What is seen: the saved explorer, pages and sheets of a latent space, slices of volumes, the
style for journals.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from .browser import CHROMIUM, browser
from .harness import EXISTS, USAGE, tree, vaearr
from .pages import offline


def picture(path: Path) -> np.ndarray:
    """The pixels of a PNG, which must show something."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.std() > 1
    return pixels


@pytest.fixture(scope="module")
def saved(trained_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("saved") / "page.html"
    before = tree(trained_template)
    vaearr("explore", trained_template, "--save", page)
    assert tree(trained_template) == before
    return page


def test_the_explorer_is_saved_as_one_offline_file(saved: Path, trained_template: Path) -> None:
    text = offline(saved)
    assert "scan.zarr" in text
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert (
        "or --overwrite" in vaearr("explore", trained_template, "--save", saved, code=EXISTS).error
    )
    vaearr("explore", trained_template, "--save", saved.with_suffix(".txt"), code=USAGE)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_the_saved_explorer_opens_without_a_network(saved: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.go(saved.as_uri())
        page.until(
            "document.readyState === 'complete' && !!window.deep && deep((e) => e.tagName === 'CANVAS').length"
        )
        page.until(
            "deep((e) => e.tagName === 'INPUT' && e.type === 'range').length >= 3"
        )  # one for each dimension
        page.run(
            "deep((e) => e.type === 'range').forEach((e) => { e.value = e.max; e.oninput(); })"
        )
        assert page.run(
            "deep((e) => e.tagName === 'OUTPUT').every((e) => e.textContent === '+3.00 std')"
        )
        choose = "(e) => { e.value = [...e.options].at(-1).value; e.dispatchEvent(new Event('change')); }"
        assert (
            page.run(f"deep((e) => e.tagName === 'SELECT').map({choose}).length") == 2
        )  # side map and latent
        assert page.errors == []
        assert [
            url for url in page.requests if not url.startswith((saved.as_uri(), "data:", "blob:"))
        ] == []


def test_collections_and_volumes_are_saved_too(
    images_template: Path, volumes_store: Path, tmp_path: Path
) -> None:
    vaearr("explore", images_template, "--save", tmp_path / "images.html")
    assert "label = disc" in offline(tmp_path / "images.html")
    vaearr("explore", volumes_store, "--save", tmp_path / "volumes.html")
    assert "Middle slices of volumes." in offline(tmp_path / "volumes.html")
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["images.html", "volumes.html"]


@pytest.mark.parametrize(
    "words",
    [
        ["pairs", "--by", "label"],
        ["prototypes", "--by", "label"],
        ["histograms", "--by", "label", "--class", "disc", "--class", "bar"],
        ["activations", "--by", "label", "--class", "both"],
    ],
    ids=lambda words: words[0],
)
def test_views_of_a_latent_space(words: list[str], images_template: Path, tmp_path: Path) -> None:
    name, *options = words
    made = vaearr("look", name, images_template, *options, "--out", tmp_path / "sheet.png")
    if name == "activations":
        chosen = {options[i + 1] for i, word in enumerate(options) if word == "--class"}
        for label in ("disc", "bar", "both"):
            assert (f"'{label}'" in made.out) is (label in chosen), made.out
    picture(tmp_path / "sheet.png")
    if name == "prototypes":  # a page is written in one way for all of them
        vaearr("look", name, images_template, *options, "--out", tmp_path / "page.html")
        offline(tmp_path / "page.html")


def test_volumes_are_seen_in_three_slices(volumes_store: Path, tmp_path: Path) -> None:
    vaearr("reconstruct", volumes_store, "--out", tmp_path / "seen")
    text = offline(tmp_path / "seen" / "slices.html")
    for plane in ("axial", "coronal", "sagittal"):
        assert plane in text
    picture(tmp_path / "seen" / "slices.png")


def test_a_style_for_journals_that_ends() -> None:
    from vaearr import views

    before = dict(mpl.rcParams)
    with views.journal():
        sizes = [
            mpl.rcParams[name] for name in ("axes.titlesize", "axes.labelsize", "xtick.labelsize")
        ]
        assert sizes == [7, 7, 6]
        assert mpl.rcParams["pdf.fonttype"] == 42
        assert mpl.rcParams["savefig.dpi"] == 300
        assert len(set(mpl.rcParams["axes.prop_cycle"].by_key()["color"])) >= 7
        assert mpl.rcParams["font.sans-serif"][-1] == "DejaVu Sans"
    assert dict(mpl.rcParams) == before
