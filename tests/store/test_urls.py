"""Stores at URLs: read like folders, never written to, and every refusal in one line."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

import vaearr as va
from vaearr import store as vs
from vaearr.batching import batches
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.run.facts import in_words, store_facts


@pytest.fixture
def in_memory(trained_store: Path) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.put(str(trained_store), "/copy.zarr", recursive=True)
    yield "memory://copy.zarr"
    fs.rm("/copy.zarr", recursive=True)


class Ranges(SimpleHTTPRequestHandler):
    """Files by parts, which every real server can and Python's own cannot."""

    def do_GET(self) -> None:
        file, wanted = Path(self.translate_path(self.path)), self.headers.get("Range")
        if wanted is None or not file.is_file():
            super().do_GET()
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        data = file.read_bytes()
        part = data[int(first) : int(last) + 1 if last else None] if first else data[-int(last) :]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(trained_store: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Ranges, directory=str(trained_store.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{trained_store.name}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("place", ["in_memory", "served"])
def test_a_url_reads_like_the_folder(place: str, trained_store: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(place)
    here, there = vs.open_store(trained_store).load(), vs.open_store(url).load()
    assert set(here.variables) == set(there.variables)
    for name in here.variables:
        np.testing.assert_array_equal(here[name].values, there[name].values)
    orders = [
        [batch.sum(dtype=float).item() for batch in batches(vs.open_store(where), memory=memory, batch_size=100)]
        for where in (trained_store, url)
        for memory in (2.0, 5e-5)
    ]
    assert orders[:2] == orders[2:]
    assert batches(vs.open_store(url)).describe().startswith("in memory")
    facts = store_facts(url)
    assert facts["trained"] == store_facts(trained_store)["trained"]
    assert facts["stored_bytes"] is None
    assert "of patterns\n" in in_words(facts)
    assert vs.open_table(url, "vae", "history").equals(vs.open_table(trained_store, "vae", "history"))


def test_what_writes_refuses_a_url(in_memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, elsewhere = tmp_path / "scan.h5", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for work in (
        lambda: va.train(in_memory),
        lambda: va.encode(in_memory),
        lambda: va.ingest(source, in_memory),
        lambda: va.ingest(source, Path("https://host/scan.zarr")),
        lambda: vs.create_store(vs.open_store(in_memory), "memory://other"),
    ):
        with pytest.raises(UsageError, match=r"is a URL, which can only be read .* copy it here first"):
            work()
    assert not list(elsewhere.iterdir())


def test_a_lost_or_broken_shard_behind_a_url(in_memory: str) -> None:
    fs = fsspec.filesystem("memory")
    shard = "/copy.zarr/patterns/c/0/0/0/0"
    good = fs.cat(shard)
    fs.pipe(shard, good[:50] + bytes([good[50] ^ 1]) + good[51:])
    region = {"y": slice(0, 32), "x": slice(0, 32)}
    with pytest.raises(DataError, match=r"memory://copy\.zarr is damaged: patterns/c/0/0/0/0 cannot be decoded"):
        vs.read_block(vs.open_store(in_memory, chunks=None).patterns, region)
    fs.rm(shard)
    with pytest.raises(DataError, match="patterns/c/0/0/0/0 is missing"):
        vs.read_block(vs.open_store(in_memory, chunks=None).patterns, region)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("memory://nothing.zarr", NoInputError, "there is no zarr v3 store at memory://nothing.zarr"),
        ("nope://a.zarr", UsageError, "nope://a.zarr cannot be read: .*nope.*; check the URL"),
    ],
)
def test_wrong_urls(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        vs.open_store(url)
    assert "\n" not in str(caught.value)
