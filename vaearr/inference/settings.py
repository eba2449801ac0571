"""How a store is reconstructed."""

from __future__ import annotations

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
    for whole numbers in stored units, else sample. examples: samples kept as pictures, of the validation part where
    there is one; seed: of their choice. batch_size: samples at once. device: auto, cpu, cuda, mps.
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
