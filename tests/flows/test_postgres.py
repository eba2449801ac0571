"""Prefect's records on PostgreSQL instead of SQLite: what a group with many runs at a time needs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import prefect_server as real

FOLDERS = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), os.environ.get("PATH", "")]
TOOLS = {name: shutil.which(name, path=os.pathsep.join(FOLDERS)) for name in ("initdb", "pg_ctl", "createdb", "psql")}
OTHERS = ("postgres", "nobody")  # whom PostgreSQL runs as where the tests run as root, which it refuses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not all(TOOLS.values()), reason=f"PostgreSQL is not installed: {TOOLS}"),
]


@pytest.fixture
def database() -> Iterator[str]:
    """A database on a free port of loopback, in a folder of its own; its address."""
    folder = Path(tempfile.mkdtemp(prefix="vaearr-postgres-"))
    user = next((name for name in OTHERS if name in {u.pw_name for u in pwd.getpwall()}), None)
    owner = user if os.getuid() == 0 else None
    if os.getuid() == 0:
        if owner is None:
            pytest.skip("PostgreSQL refuses to run as root, and there is no other user")
        shutil.chown(folder, owner)

    def call(tool: str, *words: str) -> str:
        made = subprocess.run(
            [str(TOOLS[tool]), *words], cwd=folder, user=owner, capture_output=True, text=True, timeout=real.SECONDS
        )
        assert made.returncode == 0, made.stderr
        return made.stdout

    port, data = real.free_port(), str(folder / "data")
    call("initdb", "-D", data, "-A", "trust", "-U", "prefect", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder}"
    try:
        call("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect")
        yield f"prefect@127.0.0.1:{port}/prefect"
    finally:
        stop = [str(TOOLS["pg_ctl"]), "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, cwd=folder, user=owner, timeout=real.SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def test_flow_runs_are_kept_in_postgres(database: str, trained_store: Path, tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://{database}"
    with real.server(tmp_path, PREFECT_SERVER_DATABASE_CONNECTION_URL=url) as server:
        made = server.command(
            "vaearr",
            "run",
            "associate",
            "-p",
            f"store={trained_store}",
            "-p",
            'associate.targets=["roi"]',
            cwd=tmp_path,
        )
        assert "running here, recorded there" in made.stderr, made.stderr
        with real.served(server, tmp_path, "encode"):
            made = server.command("vaearr", "run", "encode", "-p", f"store={trained_store}", "--watch", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert "is encoded already" in made.stderr
        assert server.runs("encode")[0]["state_type"] == "COMPLETED"
    count = subprocess.run(
        [str(TOOLS["psql"]), f"postgresql://{database}", "-Atc", "select count(*) from flow_run"],
        capture_output=True, text=True, check=True, timeout=real.SECONDS,
    ).stdout  # fmt: skip
    assert int(count) == 2
    assert not list((tmp_path / "home").glob("*.db"))
