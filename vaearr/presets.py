"""Named trainings: settings that go together, from published recipes, with their numbers in our conventions.

The loss is in nats per sample, so a recipe whose reconstruction error is a mean over values has its other weights times
the number of values here, see `PerceptualConfig` and `AdversarialConfig`; its KL weight w becomes beta = w x values.
"""

from __future__ import annotations

import copy
from typing import Any

from vaearr.config import TrainConfig
from vaearr.errors import UsageError, did_you_mean

# Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022: absolute error, KL weight
# 1e-6 beside a sum over values, hinge discriminator that begins when the reconstructions stand. Values from -1 to 1.
# Their LPIPS term needs files: --set objective.perceptual.kind=lpips, .weights and .linear.
_SD = {
    "model": {
        "name": "autoencoder-kl",
        "latent_dim": 4,
        "options": {
            "channels": [128, 256, 512, 512],
            "res_blocks": 2,
            "decoder_res_blocks": 3,
            "groups": 32,
            "mid_attention": True,
            "final_activation": True,
        },
    },
    "preprocess": {"static_background": "none", "normalise": "symmetric"},
    "objective": {
        "likelihood": "laplace",
        "beta": 1e-6,
        "warmup": 0.0,
        "input_noise": 0.0,
        "target": "self",
        "adversarial": {"discriminator": "patch", "kind": "hinge", "weight": 0.005, "start": 0.5, "rise": 0.2},
    },
    "split": {"method": "random", "fraction": 0.1},
    "epochs": 100,
    "batch_size": 4,
    "learning_rate": 2e-4,
    "weight_decay": 0.0,
    "rise": 0.05,
    "patience": 100,
    "sheets_every": 10,
}

# Guo et al., "MAISI: Medical AI for Synthetic Imaging", WACV 2025: absolute error, KL weight 1e-7 beside a mean over
# values (of 64^3 voxels: beta 0.026), least-squares discriminator of weight 0.1. Theirs learns from windows of large
# volumes: --set augment.crop=[64,64,64]. Perceptual term: as for `sd`, or by a trained run's encoder, --set
# objective.perceptual.run=NAME.
_MAISI = {
    "model": {
        "name": "autoencoder-kl",
        "latent_dim": 4,
        "options": {
            "channels": [32, 64, 128],
            "res_blocks": 1,
            "groups": 16,
            "mid_attention": False,
            "final_activation": False,
        },
    },
    "preprocess": {"static_background": "none", "normalise": "quantile"},
    "augment": {"flip_x": True},
    "objective": {
        "likelihood": "laplace",
        "beta": 0.02,
        "warmup": 0.0,
        "input_noise": 0.0,
        "target": "self",
        "adversarial": {
            "discriminator": "patch",
            "options": {"channels": 32},
            "kind": "lsgan",
            "weight": 0.005,
            "start": 0.5,
            "rise": 0.2,
        },
    },
    "split": {"method": "random", "fraction": 0.2},
    "epochs": 100,
    "batch_size": 1,
    "learning_rate": 3e-4,
    "weight_decay": 0.0,
    "rise": 0.05,
    "patience": 100,
    "sheets_every": 10,
}

# 28 x 28 digits and pictures of that kind; 7 000 are learned in a minute and a half on one core.
_DIGITS = {
    "model": {"latent_dim": 20},
    "preprocess": {"static_background": "none", "normalise": "unit"},
    "objective": {"likelihood": "bernoulli", "input_noise": 0.0, "target": "self"},
    "augment": {"rotate": 6.0, "scale": 0.06, "shift": 0.03, "fill": "edge"},
    "split": {"method": "random", "fraction": 0.125},
    "epochs": 45,
}

# Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework", ICLR 2017, with
# four or five halvings; beta 2 is their 4 beside a squared error without the factor 1/2.
_BETA_VAE = {
    "model": {
        "latent_dim": 128,
        "options": {
            "patch": 2,
            "coarsest": 4,
            "width": 32,
            "max_width": 512,
            "depth": 0,
            "hidden": 512,
            "squeeze": 128,
            "norm": "batch",
            "activation": "relu",
            "upsampling": "transpose",
            "head": "sigmoid",
        },
    },
    "preprocess": {"static_background": "none", "normalise": "unit"},
    "objective": {"likelihood": "gaussian", "beta": 2.0, "input_noise": 0.0, "target": "self"},
    "split": {"method": "random", "fraction": 0.1},
    "batch_size": 16,
    "learning_rate": 1e-3,
}

# name -> what it is, settings of `TrainConfig`; OF_IMAGES: those that volumes do not suit
OF_IMAGES = ("sd", "beta-vae", "digits")
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd": ("images, latents on a grid 8 times coarser: the first stage of Stable Diffusion", _SD),
    "maisi": ("volumes, latents on a grid 4 times coarser: the VAE of MAISI", _MAISI),
    "beta-vae": ("images of 64 pixels and more, a vector of 128 latents: the classic beta-VAE", _BETA_VAE),
    "digits": ("small images such as digits, a vector of 20 latents", _DIGITS),
}


def preset_settings(name: str) -> dict[str, Any]:
    """Settings of a preset, to change and give to `TrainConfig.from_attrs`. Raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}.{did_you_mean(name, sorted(PRESETS))}")
    return copy.deepcopy(PRESETS[name][1])


def check_preset(name: str, n_spatial_dims: int) -> None:
    """Raise UsageError for a preset of images where the samples are volumes, and the other way round."""
    if name in PRESETS and (n_spatial_dims > 2) == (name in OF_IMAGES):
        wanted = "maisi" if n_spatial_dims > 2 else "sd"
        kind = "volumes" if n_spatial_dims > 2 else "images"
        raise UsageError(f"the preset {name!r} is not for {kind}; for these use --preset {wanted}.")


def preset(name: str, **changes: Any) -> TrainConfig:
    """The training settings of a preset, with fields replaced as `TrainConfig.replace` does."""
    return TrainConfig.from_attrs(preset_settings(name)).replace(**changes)
