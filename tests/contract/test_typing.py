"""Public names are typed for whoever has no plug-in: neither ours nor pydantic's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.long  # mypy from an empty cache
def test_a_strictly_typed_script(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text((HERE / "typed_user.py").read_text())
    strictly = ("--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *strictly, script.name],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
