"""Write `vaearr/config/keywords.py`, the types of the keywords of steps: `python -m tests.keywords`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import vaearr.config.keywords as keywords
from vaearr import config
from vaearr.config import ProbeConfig

HEAD = '''"""Types of the settings that are keywords of a function.

Made from `vaearr.config` by `make keywords`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from vaearr import config
'''
OF_RUN = ("run",)
# name -> config, the type it extends, settings that the function has parameters for, or none
TYPES: dict[str, tuple[type[config.Config], str, Sequence[str]]] = {
    "IngestSettings": (config.IngestConfig, "TypedDict", ()),
    "TrainSettings": (config.TrainConfig, "TypedDict", ()),
    "ImportSettings": (config.ImportConfig, "TypedDict", ()),
    "EncodeSettings": (config.EncodeConfig, "TypedDict", OF_RUN),
    "ReconstructSettings": (config.ReconstructConfig, "TypedDict", (*OF_RUN, "roi")),
    "AssociateSettings": (
        config.AssociateConfig,
        "TypedDict",
        (*OF_RUN, "targets", "significance"),
    ),
    "ClusterArraySettings": (
        config.ClusterConfig,
        "TypedDict",
        (*OF_RUN, "features", "name", "method"),
    ),
    "ClusterSettings": (config.ClusterConfig, "ClusterArraySettings", (*OF_RUN, "features")),
    "ProbeArraySettings": (
        ProbeConfig,
        "TypedDict",
        (*OF_RUN, "targets", "features", "name", "by"),
    ),
    "ProbeSettings": (ProbeConfig, "ProbeArraySettings", (*OF_RUN, "targets")),
}


def written(annotation: Any) -> str:
    """An annotation as a user may fulfil it: lists for tuples, text for paths."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "Any"
    if annotation is NoneType:
        return "None"
    if origin is Annotated:
        return written(parts[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin is tuple:
        return f"Sequence[{written(parts[0])}]"
    if origin is dict:
        return f"Mapping[{written(parts[0])}, {written(parts[1])}]"
    if parts:
        return " | ".join(map(written, parts))
    if issubclass(annotation, Path):
        return "str | Path"
    if issubclass(annotation, config.Config):
        return f"config.{annotation.__name__} | Mapping[str, Any]"
    return str(annotation.__name__)


def settings_of(name: str) -> dict[str, config.Setting]:
    """Settings that are keys of a type."""
    kind, _, without = TYPES[name]
    settings = config.settings_of(kind)
    return {key: settings[key] for key in settings if key not in without}


def text() -> str:
    """The module as it should be."""
    lines = [HEAD]
    for name, (kind, base, _) in TYPES.items():
        lines += ["", f"class {name}({base}, total=False):"]
        lines += [f'    """Settings of `{kind.__name__}`."""', ""]
        inherited = () if base == "TypedDict" else set(settings_of(base))
        for key, setting in settings_of(name).items():
            if key in inherited:
                continue
            annotation = written(setting.field.annotation)
            if len(setting.path) > 1 and key in kind.model_fields:  # a name, or the group
                annotation += f" | {written(kind.model_fields[key].annotation)}"
            line = f"    {key}: {annotation}"
            comment = f"  # {setting.field.description}"
            lines.append(line + comment if len(line + comment) <= 100 else line)
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", keywords.__file__, "-"]
    formatted = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, check=True
    )
    return formatted.stdout


if __name__ == "__main__":
    Path(keywords.__file__).write_text(text())
