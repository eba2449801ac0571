"""Each notebook runs as a user would run it, in its time, without a network, and shows its figures."""

from __future__ import annotations

import pytest

from tests.notebooks.running import check, run

FIGURES = {  # bokeh views, pictures
    "01_first_maps": (9, 1),
    "02_what_latents_mean": (6, 0),
    "03_latent_space": (8, 1),
    "04_volumes_and_layers": (6, 0),
    "05_dataset_in_your_hands": (4, 0),
    "06_how_much_they_know": (2, 0),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name.startswith("01") else pytest.mark.long)
        for name in FIGURES
    ],
)
def test_it_runs(name, tmp_path, monkeypatch):
    views, pictures = FIGURES[name]
    check(run(name, tmp_path, monkeypatch), views=views, pictures=pictures)
