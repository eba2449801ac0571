"""What a trained model makes of data and of latents: reconstructions with their quality, draws, paths, statistics."""

from vaearr.config import ReconstructConfig
from vaearr.inference.blinded import blinded_set, score_blinded
from vaearr.inference.distances import frechet_distance, kernel_distance
from vaearr.inference.fidelity import sample_fidelity
from vaearr.inference.files import reconstruct_files
from vaearr.inference.generate import interpolate, sample_prior
from vaearr.inference.memorisation import nearest_training
from vaearr.inference.paths import METHODS, lerp, slerp
from vaearr.inference.rebuild import reconstruct_store
from vaearr.inference.statistics import latent_statistics
from vaearr.models.windows import decode_windows, encode_windows

__all__ = [
    "METHODS",
    "ReconstructConfig",
    "blinded_set",
    "decode_windows",
    "encode_windows",
    "frechet_distance",
    "interpolate",
    "kernel_distance",
    "latent_statistics",
    "lerp",
    "nearest_training",
    "reconstruct_files",
    "reconstruct_store",
    "sample_fidelity",
    "sample_prior",
    "score_blinded",
    "slerp",
]
