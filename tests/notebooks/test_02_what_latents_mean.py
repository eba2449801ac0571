"""Association, clusters, principal components: the notebook runs, in its time, without a network."""

from __future__ import annotations

import pytest

from tests.notebooks.running import check, run


@pytest.mark.long
def test_it_runs(tmp_path, monkeypatch):
    check(run("02_what_latents_mean", tmp_path, monkeypatch), views=6, pictures=1)
