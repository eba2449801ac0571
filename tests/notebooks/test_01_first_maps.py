"""First maps from a scan: the notebook runs, in its time, without a network."""

from __future__ import annotations

from tests.notebooks.running import check, run


def test_it_runs(tmp_path, monkeypatch):
    check(run("01_first_maps", tmp_path, monkeypatch), views=8, pictures=2)
