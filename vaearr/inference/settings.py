"""How a store is reconstructed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vaearr import names as n
from vaearr.config import Config, RoiConfig


class ReconstructConfig(Config):
    """What is reconstructed and how it is judged.

    run: whose model. name: table in `/runs/<run>`, and variable of the store, `<name>` or for another run
    `<name>_<run>`. out: "variable" also writes the reconstructions into the store. roi: conditions; default: the run's
    region. part: points of the region, by the run's split. units: in which reconstructions are given and judged; stored
    units give back to each pattern its own scale, see `vaearr.preprocess.undo`. data_range: of PSNR and SSIM: a number,
    dtype = the whole range of the stored whole numbers, sample = largest - smallest value of each input; default: dtype
    for 8 bits in stored units, else sample. examples: samples kept as pictures, of the validation part where
    there is one; seed: of their choice. batch_size: samples at once, fewer where they are large. device: auto, cpu,
    cuda, mps.

    window: pixels per spatial dim: a network with spatial latents takes samples window by window, which share at least
    `overlap` of their length (`vaearr.models.windows`). lpips_weights, lpips_linear: files of a feature network and of
    the LPIPS weights on it (`vaearr.perceptual`); with them LPIPS is measured too.
    """

    run: str = n.DEFAULT_RUN
    name: str = n.RECONSTRUCTION
    out: Literal["variable"] | None = None
    roi: RoiConfig | None = None
    part: Literal["all", "train", "validation"] = "all"
    units: Literal["stored", "preprocessed"] = "stored"
    data_range: float | Literal["dtype", "sample"] | None = None
    examples: int = 8
    seed: int = 0
    batch_size: int = 256
    device: str = "auto"
    window: tuple[int, ...] | None = None
    overlap: float = 0.25
    lpips_weights: Path | None = None
    lpips_linear: Path | None = None
