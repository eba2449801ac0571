"""The pictures of the README, each of a run on data that anyone can create.

python notebooks/pictures/make.py [scan] [page] [volumes] [digits]     (default: all; some
minutes on two cores)
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import vaearr as va
from vaearr.cli.demo import run_demo
from vaearr.config import IngestConfig, TrainConfig
from vaearr.config.presets import preset_settings
from vaearr.testing import synthetic_volumes, write_volume_files

FOLDER = Path(__file__).parent
DPI, RIM = 150, 8
MOST_BYTES = 150_000


def scan(folder: Path) -> Any:
    """The latent maps of the demo's scan."""
    run_demo(folder / "demo")
    return va.view(va.open_store(folder / "demo" / "scan.zarr")["latents"])


def page(folder: Path) -> Any:
    """The live page of the demo's scan, two runs compared, in a browser without a window."""
    sys.path.insert(0, str(FOLDER.parents[1]))  # for the driver of the browser
    from tests.contract import explorer

    run_demo(folder / "demo")
    with explorer.opened(folder / "demo" / "scan.zarr", folder) as browser:
        browser.go(browser.run("location.href") + "?compare=pca")
        explorer.says(browser, "by the other run")
        browser.until("deep((e) => e.tagName === 'IMG' && e.alt === 'by the other run').length")
        browser.picture(folder / "page.png")
    return Image.open(folder / "page.png").convert("RGB")


def volumes(folder: Path) -> Any:
    """A volume of a subject outside the training data, its reconstruction and the residual."""
    store = folder / "volumes.zarr"
    va.ingest(
        write_volume_files(synthetic_volumes(24, (24, 32, 24), spacing=6.0), folder / "files"),
        store,
    )
    settings = preset_settings("maisi")
    settings["model"]["options"] |= {"channels": [16, 32], "groups": 8}
    settings["objective"] |= {"beta": 1e-3, "adversarial": None}
    settings["split"] = {"method": "groups", "by": "subject", "fraction": 0.2}
    settings |= {"epochs": 50, "learning_rate": 2e-3}
    va.train(store, config=TrainConfig.from_attrs(settings))
    va.encode(store)
    return va.view(va.load_run(store).reconstruct(), kind="volumes")


def digits(folder: Path) -> Any:
    """The plane of a run with two latents, decoded; the digits are those that scikit-learn ships."""
    from sklearn.datasets import load_digits

    data = load_digits()
    for i, (image, label) in enumerate(zip(data.images, data.target, strict=True)):
        file = folder / "digits" / str(label) / f"{i:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        grey = np.rint(image / 16 * 255).astype(np.uint8)
        Image.fromarray(np.pad(grey, 1)).save(file)
    store = folder / "digits.zarr"
    va.ingest(folder / "digits", store, config=IngestConfig(size=(20, 20)))
    va.train(store, latent_dim=2, epochs=60)
    va.encode(store)
    return va.view(va.load_run(store).manifold(span=(-2, 2), steps=14))


PICTURES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "scan": ("demo_latent_maps.png", scan),
    "page": ("explorer.png", page),
    "volumes": ("volume_reconstruction.png", volumes),
    "digits": ("digits_manifold.png", digits),
}


def trimmed(image: Image.Image) -> Image.Image:
    """A picture without the white around it, but for a few pixels."""
    rows, columns = np.nonzero((np.asarray(image) < 250).any(-1))
    left, top = max(columns.min() - RIM, 0), max(rows.min() - RIM, 0)
    right, bottom = (
        min(columns.max() + RIM + 1, image.width),
        min(rows.max() + RIM + 1, image.height),
    )
    return image.crop((left, top, right, bottom))


def save(figure: Any, path: Path) -> int:
    """Write a figure without its empty rim, or a picture, as PNG, in 256 colours if too large;
    returns its bytes.
    """
    if isinstance(figure, Image.Image):
        whole = figure
    else:
        with tempfile.TemporaryDirectory() as scratch:
            whole = trimmed(
                Image.open(va.save(figure, Path(scratch) / "whole.png", dpi=DPI)).convert("RGB")
            )
    red, green, blue = np.moveaxis(np.asarray(whole), -1, 0)
    tries = [whole.convert("L") if (red == green).all() and (red == blue).all() else whole]
    tries.append(whole.quantize(256, kmeans=4, dither=Image.Dither.NONE))
    for image in tries:
        written = io.BytesIO()
        image.save(written, "PNG", optimize=True)
        if written.tell() <= MOST_BYTES:
            path.write_bytes(written.getvalue())
            return written.tell()
    raise SystemExit(f"{path.name} has {written.tell()} bytes, more than {MOST_BYTES}")


def main(names: list[str]) -> None:
    """Make the pictures of these names."""
    if strangers := set(names) - set(PICTURES):
        raise SystemExit(
            f"there is no picture {sorted(strangers)[0]!r}; known: {', '.join(PICTURES)}"
        )
    for name in names or PICTURES:
        file, make = PICTURES[name]
        with tempfile.TemporaryDirectory() as folder:
            print(f"{file}: {save(make(Path(folder)), FOLDER / file):,} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
