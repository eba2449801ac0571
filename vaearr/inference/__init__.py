"""What a trained model makes of data and of latents: reconstructions with their quality, draws, paths, statistics."""

from vaearr.inference.generate import interpolate, sample_prior
from vaearr.inference.paths import METHODS, lerp, slerp
from vaearr.inference.rebuild import reconstruct_store
from vaearr.inference.settings import ReconstructConfig
from vaearr.inference.statistics import latent_statistics

__all__ = [
    "METHODS",
    "ReconstructConfig",
    "interpolate",
    "latent_statistics",
    "lerp",
    "reconstruct_store",
    "sample_prior",
    "slerp",
]
