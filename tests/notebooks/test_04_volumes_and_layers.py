"""Volumes, layers, a second stage: the notebook runs, in its time, without a network."""

from __future__ import annotations

import pytest

from tests.notebooks.running import check, run


@pytest.mark.long
def test_it_runs(tmp_path, monkeypatch):
    check(run("04_volumes_and_layers", tmp_path, monkeypatch), views=3, pictures=4)
