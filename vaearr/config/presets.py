"""Published settings by name, converted to the conventions of vaearr.

The loss is in nats per sample. If a publication averages the reconstruction error over values, its
other weights are multiplied by the number of values, see `PerceptualConfig` and
`AdversarialConfig`; its KL weight w becomes beta = w x values.
"""

from __future__ import annotations

import copy
from typing import Any, Unpack

from vaearr.config import TrainConfig, resolved
from vaearr.config.keywords import TrainSettings
from vaearr.errors import UsageError, did_you_mean

# absolute error to the sample itself, without noise
_SHARP = {"likelihood": "laplace", "warmup": 0.0, "input_noise": 0.0, "target": "self"}
_DISCRIMINATOR = {"discriminator": "patch", "weight": 0.005, "start": 0.5, "rise": 0.2}
_LATENT_DIFFUSION = {
    "epochs": 100,
    "weight_decay": 0.0,
    "rise": 0.05,
    "patience": 100,
    "sheets_every": 10,
}

# Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022:
# absolute error, KL weight 1e-6 with a sum over values, hinge discriminator that starts after half
# of the training. Values from -1 to 1. Their LPIPS term needs files: --set
# objective.perceptual.kind=lpips, .weights and .linear.
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
    "objective": {**_SHARP, "beta": 1e-6, "adversarial": {"kind": "hinge", **_DISCRIMINATOR}},
    "split": {"method": "random", "fraction": 0.1},
    **_LATENT_DIFFUSION,
    "batch_size": 4,
    "learning_rate": 2e-4,
}

# Guo et al., "MAISI: Medical AI for Synthetic Imaging", WACV 2025: absolute error, KL weight 1e-7
# with a mean over values (of 64^3 voxels: beta 0.026), least-squares discriminator of weight 0.1.
# Perceptual term: as for `sd`, or by the encoder of a trained run, --set
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
        **_SHARP,
        "beta": 0.02,
        "adversarial": {"kind": "lsgan", "options": {"channels": 32}, **_DISCRIMINATOR},
    },
    "split": {"method": "random", "fraction": 0.2},
    **_LATENT_DIFFUSION,
    "batch_size": 1,
    "learning_rate": 3e-4,
}

# 28 x 28 digits and similar pictures. The network predicts the digit before it was rotated, scaled
# and shifted, so that the latents do not encode these changes. Five nearest neighbours in 10
# dimensions, 8 folds of 8000 digits, classify 96.6 to 96.8 % (two seeds; in 32 principal components
# 95.5 %); 95.6 % if a digit is moved less and predicted as moved (18 nats closer to the data).
_DIGITS = {
    "model": {"latent_dim": 20},
    "preprocess": {"static_background": "none", "normalise": "unit"},
    "objective": {"likelihood": "bernoulli", "input_noise": 0.0, "target": "unmoved"},
    "augment": {"rotate": 15.0, "scale": 0.15, "shift": 0.08, "fill": "edge"},
    "split": {"method": "random", "fraction": 0.125},
    "epochs": 80,
}

# name -> description, settings of `TrainConfig`
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd": ("images, latents on a grid 8 times coarser: the first stage of Stable Diffusion", _SD),
    "maisi": ("volumes, latents on a grid 4 times coarser: the VAE of MAISI", _MAISI),
    "digits": ("small images such as digits, a vector of 20 latents", _DIGITS),
}


def preset_settings(name: str) -> dict[str, Any]:
    """Return the settings of a preset, nested as in TrainConfig. Raises UsageError for an unknown
    name.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}.{did_you_mean(name, sorted(PRESETS))}")
    return copy.deepcopy(PRESETS[name][1])


def preset(name: str, **changes: Unpack[TrainSettings]) -> TrainConfig:
    """Return the training settings of a preset, with single ones replaced.

    Parameters
    ----------
    name : str
        Name of the preset, such as ``"sd"`` or ``"maisi"``.
    **changes
        Settings of `train` that replace those of the preset.

    Returns
    -------
    TrainConfig
        Settings for ``config=`` of `train`.

    Examples
    --------
    >>> config = va.preset("maisi", epochs=10)
    >>> config.model.name, config.epochs
    ('autoencoder-kl', 10)
    """
    return resolved(TrainConfig, TrainConfig.from_attrs(preset_settings(name)), changes)
