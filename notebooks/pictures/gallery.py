"""The gallery of the documentation: a picture of every kind of view, and `docs/gallery.md`.

python notebooks/pictures/gallery.py     (some minutes on two cores)

The line of code below a picture is the one that makes it.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import vaearr as va
from vaearr.analysis.side_maps import histogram
from vaearr.cli.demo import run_demo
from vaearr.models.card import model_card
from vaearr.testing import synthetic_volumes, write_volume_files

FOLDER = Path(__file__).parent / "kinds"
PAGE = Path(__file__).parents[2] / "docs" / "gallery.md"
DPI = 130
COLORS = 96
MOST_BYTES = 1_200_000  # of all pictures
# heading: rows of name, caption, and code
SECTIONS = {
    "Maps": [
        ("map", "A map in its coordinates, with the border of a region", "va.view(ds.BC, roi=ds.BC > 180)"),
        ("classes", "A map of classes", "va.view(ds.phase)"),
        ("stack", "Latents, each on its own scale", "va.view(ds.latents)"),
        ("side_maps", "The maps that came with the scan", 'va.view(ds, kind="side_maps")'),
        ("patterns", "Random patterns of each class", "va.view(ds.patterns)"),
        ("pictures", "Chosen patterns on one scale", "va.view(ds.patterns[8, 4:20:4])"),
    ],
    "What the latents mean": [
        ("association", "Latents against targets; dots mark p < 0.05", 'va.view(run.table("association"), metric="pearson")'),
        ("map_scatter", "A latent against a target; both panels are linked on the screen", 'va.view(ds, kind="map_scatter", latent=0, target="BC")'),
        ("clusters", "Clusters shaded by a latent", 'va.view(ds.grains, kind="clusters", latent=ds.latents[..., 0], target=ds.BC)'),
        ("confusion", "Clusters against phases, in points", "va.view(va.cluster_scores(ds.grains, ds.phase).confusion)"),
        ("runs", "Runs compared", "va.view(va.compare([run, pca]))"),
        ("probe", "How well features predict a target, with intervals", 'va.view(run.probe(["BC", "phase"]))'),
        ("activations", "Latents of samples sorted by class", 'va.view(run.activations("phase"))'),
    ],
    "The latent space": [
        ("embedding", "All samples in a plane", 'va.view(digits.scatter("tsne", by="label", max_points=900))'),
        ("pairs", "Pairs of latents: densities, histograms, samples by class", 'va.view(digits.pairs("label", dims=[0, 1, 2]))'),
        ("histograms", "Histograms of latents by class", 'va.view(digits.histograms("label", dims=[0, 1, 2]))'),
        ("statistics", "Aggregate posterior and prior", "va.view(run.statistics())"),
    ],
    "Decoded pictures": [
        ("reconstruction", "Inputs, reconstructions and residuals", "va.view(run.reconstruct())"),
        ("traversal", "One latent after another moved from a typical sample", 'va.view(digits.traverse([0, 1, 2], base="typical:3", steps=9))'),
        ("manifold", "The plane of two latents", "va.view(plane.manifold(span=(-2, 2), steps=12))"),
        ("interpolation", "Between two samples", "va.view(digits.interpolate(0, 1300, steps=7))"),
        ("path", "Points of a path in the plane, decoded", "va.view(digits.line([(-2, -2), (2, 2)], steps=4))"),
        ("prototypes", "Typical sample and mean of each class", 'va.view(digits.prototypes("label"))'),
        ("draws", "Samples from the prior", "va.view(digits.sample(16))"),
        ("components", "Principal components", "va.view(pca.components)"),
    ],
    "Training and networks": [
        ("history", "The loss and its terms", "va.view(run.history)"),
        ("run_health", "KL divergence of each latent", "va.view(run.health)"),
        ("variance", "Explained variance", "va.view(pca.health.explained_variance_ratio)"),
        ("network", "The stages of a network", "va.view(model_card(run.model))  # of vaearr.models.card"),
        ("layers", "Two samples, layer by layer", "va.view(volumes.layers(0, 1))"),
        ("top_layers", "The layers that differ most", 'va.view(volumes.layers(0, 1), kind="top_layers")'),
        ("layer_maps", "Where the layers differ", 'va.view(volumes.layers(0, 1), kind="layer_maps")'),
    ],
    "Volumes": [
        ("volume", "A volume as three slices", "va.view(volumes.ds.patterns[1])"),
        ("volumes", "A volume, its reconstruction and the residual", 'va.view(volumes.reconstruct(), kind="volumes")'),
    ],
    "Distributions of a map": [
        ("histogram", "Values of a map", "va.view(histogram(ds.BC, 5))  # of vaearr.analysis.side_maps"),
    ],
}  # fmt: skip
HEAD = """# Gallery

Each picture is a view of a labelled result: `va.view(result)` chooses it by the kind of the result and gives a live
figure, `va.save(result, "figure.pdf", width="single")` writes it for the column of a journal, as here. `ds` is the
[demo scan](start.md) with the runs `run` and `pca`; `digits` and `plane` are runs on scikit-learn's digits, `volumes` one
on simulated volumes. `make pictures` creates this page.

Maps by name are shown side by side on one colour scale, see [several scans](several-scans.md); all of a store at once is
in the [report](sharing.md) and in the [explorer](exploring.md).
"""
CARD = """
:::{{grid-item-card}} {caption}
![{caption}](../notebooks/pictures/kinds/{name}.png)
+++
```python
{code}
```
:::
"""


def train(folder: Path) -> None:
    """Stores with trained runs: the demo, digits and volumes."""
    run_demo(folder / "demo")
    store = folder / "digits.zarr"
    va.ingest("sklearn:digits", store)
    digits = va.train(store, latent_dim=10, epochs=25)
    digits.encode()
    plane = va.train(store, run="plane", latent_dim=2, epochs=40)
    plane.encode()
    manifest = write_volume_files(synthetic_volumes(12), folder / "files")
    store = folder / "volumes.zarr"
    va.ingest(manifest, store)
    config = va.preset(
        "maisi",
        model={"options": {"channels": [16, 16], "groups": 8}},
        objective={"beta": 1e-3, "adversarial": None},
        split={"method": "groups", "by": "subject", "fraction": 0.2},
        epochs=15,
        learning_rate=2e-3,
    )
    volumes = va.train(store, config=config)
    volumes.encode()


def results(folder: Path) -> dict[str, Any]:
    """The names that the code of the gallery uses."""
    scan = folder / "demo" / "scan.zarr"
    digits = folder / "digits.zarr"
    run = va.load_run(scan)
    return {
        "va": va,
        "histogram": histogram,
        "model_card": model_card,
        "run": run,
        "ds": run.ds.load(),
        "pca": va.load_run(scan, "pca"),
        "digits": va.load_run(digits),
        "plane": va.load_run(digits, "plane"),
        "volumes": va.load_run(folder / "volumes.zarr"),
    }


def picture(view: Any, path: Path) -> int:
    """Write a view at the width of a column in few colours; returns the bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        file = va.save(view, Path(scratch) / "view.png", width="single", dpi=DPI)
        image = Image.open(file).convert("RGB")
    data = io.BytesIO()
    image.quantize(COLORS, kmeans=2, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    path.write_bytes(data.getvalue())
    return len(data.getvalue())


def write(folder: Path) -> None:
    """Write all pictures and the page, from the stores in a folder."""
    FOLDER.mkdir(exist_ok=True)
    names = results(folder)
    page = HEAD
    total = 0
    for heading, rows in SECTIONS.items():
        page += f"\n## {heading}\n\n::::{{grid}} 1 2 2 3\n:gutter: 3\n"
        for name, caption, code in rows:
            total += picture(eval(code, names), FOLDER / f"{name}.png")
            page += CARD.format(name=name, caption=caption, code=code)
            print(name, f"{total:,}", flush=True)
        page += "\n::::\n"
    if total > MOST_BYTES:
        raise SystemExit(f"the pictures have {total:,} bytes, more than {MOST_BYTES:,}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        train(Path(scratch))
        write(Path(scratch))
