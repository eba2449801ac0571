"""Image networks: sizes as published, shapes without memory."""

import pytest
import torch

from vaearr.models.backbones import BACKBONES, layers_without_weights

N_PARAMETERS = {"alexnet": 2_469_696, "vgg16": 14_714_688, "squeezenet": 722_496}  # of the convolutions


@pytest.mark.parametrize("name", BACKBONES)
def test_sizes_are_those_of_the_papers(name):
    before = torch.random.get_rng_state()
    layers = layers_without_weights(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sum(p.numel() for p in layers.parameters()) == N_PARAMETERS[name]
    assert all(p.is_meta for p in layers.parameters())
    assert len(layers) == BACKBONES[name].taps[-1] + 1


@pytest.mark.parametrize("name", BACKBONES)
def test_features_have_the_channels_of_the_table_from_the_least_side_on(name):
    backbone, layers = BACKBONES[name], layers_without_weights(name)

    def channels(side):
        x, found = torch.empty(1, 3, side, side + 3, device="meta"), []
        for i, layer in enumerate(layers):
            x = layer(x)
            if i in backbone.taps:
                found.append(x.shape[1])
        return tuple(found)

    assert channels(backbone.least) == backbone.channels
    with pytest.raises(RuntimeError):
        channels(backbone.least - 1)


def test_squeezenet_names_its_branches_as_torchvision_does():
    names = list(layers_without_weights("squeezenet").state_dict())
    assert names[:4] == ["0.weight", "0.bias", "3.squeeze.weight", "3.squeeze.bias"]
    assert names[-2:] == ["12.expand3x3.weight", "12.expand3x3.bias"]
