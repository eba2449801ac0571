"""Execute the notebooks and store them with their outputs: texts, tables, and figures as PNG.

python -m notebooks.store [NAME ...]     (all by default; some minutes)
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

from tests.notebooks.running import FOLDER, run

SCRATCH = re.compile(r"/[\w./-]*/work/tmp\w+/?")  # folder that a notebook makes for its files


def static(data: dict[str, str]) -> dict[str, str]:
    """Of an output its picture, else its text and table; scripts of live figures are left out."""
    if "image/png" in data:
        return {"image/png": small(data["image/png"])}
    if data["text/plain"].startswith("<IPython"):  # a progress bar or scripts
        return {}
    kept = {"text/plain": data["text/plain"]}
    if "<table" in data.get("text/html", "") and "dataframe" in data["text/html"][:400]:
        kept["text/html"] = data["text/html"]
    if any(kind.startswith("application/") for kind in data):
        return {}
    return {kind: SCRATCH.sub("", value) for kind, value in kept.items()}


def small(png: str) -> str:
    """A picture in 128 colours, as base64."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    data = io.BytesIO()
    image.quantize(128, kmeans=2, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def stored(notebook: Any) -> Any:
    """An executed notebook without what is bulky or depends on the machine."""
    notebook.metadata["language_info"] = {"name": "python"}
    number = 0
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number
        outputs = []
        for output in cell.outputs:
            output.pop("execution_count", None)
            if output.output_type == "stream":
                output.text = SCRATCH.sub("", output.text)
                outputs.append(output)
                continue
            data = static(output.data)
            if data:
                outputs.append(nbformat.v4.new_output("display_data", data))
        cell.outputs = outputs
    return notebook


def main(names: list[str]) -> None:
    """Store these notebooks, or all."""
    for name in names or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            notebook = stored(run(name, Path(folder), patch, as_pictures=True))
        path = FOLDER / f"{name}.ipynb"
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(text):,} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
