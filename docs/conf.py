"""The documentation: pages in Markdown, the notebooks as tutorials, references generated from the
code.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bokeh
import click
import panel
from docutils import nodes
from docutils.utils.math import latex2mathml

import vaearr
import vaearr.config
from vaearr.cli.common import app
from vaearr.cli.help import STEPS

HERE = Path(__file__).parent
project, author = "vaearr", "The vaearr developers"
release = version = vaearr.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
autosummary_generate = True
exclude_patterns = ["_build"]
highlight_language = "bash"  # of blocks that name none
default_role = "code"  # as docstrings use backticks
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navigation_with_keys": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "logo": {
        "text": "vaearr",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo-dark.svg",
    },
    "navbar_persistent": [],
    "navbar_end": ["search-field.html", "theme-switcher"],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}
html_title = "vaearr"
html_favicon = "_static/logo.svg"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_sidebars = {"index": [], "gallery": []}
html_css_files = ["site.css"]
html_static_path = ["_static"]
autodoc_typehints = "signature"
maximum_signature_line_length = 90  # longer ones: a parameter per line
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are stored with their outputs; the tests execute them
suppress_warnings = ["mystnb.unknown_mime_type"]  # which HoloViews makes for the notebook itself
nb_mime_priority_overrides = [("html", "text/html", 0), ("html", "image/png", 10)]


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _settings() -> Iterator[str]:
    """A table of each step's settings: name, default, what it does; groups of settings have tables
    of their own.
    """
    yield "# Settings\n"
    yield (
        "A setting is a keyword of its function, and is set by `--set` on the command line, such as "
        "`--set objective.beta=2` or by a keyword that takes the group, all together by `config=` or "
        "`--config FILE.json`.\n"
    )
    todo, seen = list(STEPS.values()), set[Any]()
    for config in todo:
        if config in seen:
            continue
        seen.add(config)
        yield f"\n## {config.__name__}\n\n{_cell(inspect.getdoc(config) or '')}\n"
        yield "| setting | default | what |\n| --- | --- | --- |"
        for name, field in config.model_fields.items():
            group = vaearr.config.group_of(field)
            if group is not None:
                todo.append(group)
            default = field.get_default(call_default_factory=True)
            shown = group.__name__ if group is not None else repr(default)
            yield f"| `{name}` | `{_cell(shown)}` | {_cell(field.description or '')} |"


def _commands() -> Iterator[str]:
    """Each command with its arguments and options."""
    yield "# Commands\n\n`vaearr COMMAND --help` prints the same in the terminal.\n"
    root: Any = app

    def of(command: Any, path: str) -> Iterator[str]:
        yield f"\n## {path}\n\n{inspect.cleandoc(command.help or '')}\n"
        if hasattr(command, "commands"):
            for name, other in command.commands.items():
                yield from of(other, f"{path} {name}")
            return
        yield "| argument or option | what |\n| --- | --- |"
        context = click.Context(command, show_default=True)
        for param in command.params:
            names, words = param.get_help_record(context)
            yield f"| `{_cell(names)}` | {_cell(words)} |"

    for name, command in root.commands.items():
        yield from of(command, f"vaearr {name}")


CARRIED = {  # what notebooks would load from other hosts: where it lies in the packages
    f"https://cdn.holoviz.org/panel/{panel.__version__}/dist/": Path(panel.__file__).parent
    / "dist",
    "https://cdn.bokeh.org/bokeh/release/": Path(bokeh.__file__).parent
    / "server"
    / "static"
    / "js",
}


def _carry(sphinx: Any, error: Exception | None) -> None:
    """Copy the scripts and style sheets of the notebooks' pictures next to the pages, which then
    request nothing from another host.
    """
    out = Path(sphinx.outdir)
    for page in [] if error else sorted((out / "tutorials").glob("*.html")):
        text = page.read_text(encoding="utf-8")
        for url, folder in CARRIED.items():
            for name in sorted({*re.findall(rf"{re.escape(url)}([\w./@^-]+?\.(?:js|css))", text)}):
                file = folder / name.replace(f"-{bokeh.__version__}", "")
                target = (
                    out
                    / "_static"
                    / folder.name
                    / file.relative_to(folder).as_posix().replace("^", "")
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                text = text.replace(url + name, f"../{target.relative_to(out).as_posix()}")
        page.write_text(text, encoding="utf-8")


def _inline_math(translator: Any, node: Any) -> None:
    """Equations as MathML, which browsers show without a script from another host."""
    translator.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def _math_block(translator: Any, node: Any) -> None:
    translator.body.append(latex2mathml.tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(sphinx: Any) -> None:
    sphinx.add_html_math_renderer("mathml", (_inline_math, None), (_math_block, None))
    sphinx.connect("build-finished", _carry)
    for path in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        shutil.copyfile(path, HERE / "tutorials" / path.name)
    for name, lines in {"settings": _settings(), "commands": _commands()}.items():
        (HERE / "reference" / f"{name}.md").write_text("\n".join(lines) + "\n")
