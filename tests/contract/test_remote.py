"""A finished store is copied to S3 or a web server with any tool, and read there as docs/s3.md
shows.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import NoInputError

from .harness import USAGE, vaearr, zarr

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def s3(trained_template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a store that boto3 has copied to a bucket."""
    for package in ("obstore", "moto", "boto3", "flask"):
        pytest.importorskip(package, reason=f"NOT TESTED: reading from S3 needs {package}")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in (keys | {"AWS_ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="lab")
    for file in trained_template.rglob("*"):
        if file.is_file():
            client.upload_file(
                str(file), "lab", f"scan.zarr/{file.relative_to(trained_template).as_posix()}"
            )
    yield "s3://lab/scan.zarr"
    server.stop()


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a log."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def http(trained_template: Path) -> Iterator[str]:
    """The URL of a store that a web server serves."""
    pytest.importorskip("obstore", reason="NOT TESTED: reading from a URL needs obstore")
    handler = partial(Quiet, directory=str(trained_template.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{trained_template.name}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("place", ["s3", "http"])
def test_a_finished_store_is_read_from_a_url(
    place: str,
    trained_template: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = request.getfixturevalue(place)
    local = va.open_store(trained_template)
    remote = va.open_store(url)
    assert set(remote.variables) == set(local.variables)
    for name in local.variables:
        np.testing.assert_array_equal(remote[name].values, local[name].values, err_msg=str(name))
    assert remote.attrs == local.attrs
    monkeypatch.setenv("SCAN_URL", url)
    known: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "s3.md").read_text(), re.DOTALL):
        exec(compile(block, "s3.md", "exec"), known)
    plain = known["plain"]
    assert isinstance(plain, xr.Dataset)
    np.testing.assert_array_equal(plain.latents, zarr(trained_template).latents)


COMMANDS = (
    "info URL",
    "verify URL",
    "train URL",
    "encode URL",
    "associate URL",
    "report URL",
    "look statistics URL",
    "export URL out",
    "ingest SOURCE URL",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_whatever_else_needs_a_copy(
    command: str, scan_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url, copy in (
        ("s3://lab/deep/scan.zarr", "'aws s3 cp --recursive s3://lab/deep/scan.zarr scan.zarr'"),
        ("https://example.org/scan.zarr", "'wget --recursive"),
    ):
        known = {"URL": url, "SOURCE": scan_files["patterns"]}
        words = [known.get(word, word) for word in command.split()]
        error = vaearr(*words, code=USAGE).error
        assert "copy the store to this machine first" in error
        assert copy in error
        assert list(tmp_path.iterdir()) == []


def test_a_url_without_a_store(s3: str) -> None:
    for url in ("s3://lab/nothing.zarr", "s3://nowhere/scan.zarr"):
        with pytest.raises(
            NoInputError, match=r"there is no zarr v3 store at s3://.*check the URL"
        ) as caught:
            va.open_store(url)
        assert "\n" not in str(caught.value)
