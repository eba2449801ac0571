"""The structure holds: imports go one way, heavy libraries have one home and wait until they are
used.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import vaearr
from vaearr.computing import borrowed

ROOT = Path(vaearr.__file__).parent

# A module may import modules of its own layer and of layers above it in this list.
LAYERS = [
    {"names", "errors"},
    {"config", "schema", "recipe", "computing"},
    {"store"},
    {"sources"},
    {"batching", "models"},
    {"ingestion", "training"},
    {"analysis"},
    {"views"},
    {"output", "app"},
    {"run"},
    {"testing"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
TESTING = {"testing"}  # for tests, the demo and users; no other module may use it

HOMES = {
    "zarr": {"store", "computing"},
    "obstore": {"store"},
    "h5py": {"sources", "testing"},
    "pandas": {"schema", "sources", "ingestion", "analysis", "views", "output", "run", "testing"},
    "holoviews": {"views"},
    "bokeh": {"views", "app"},
    "panel": {"app"},
    "matplotlib": {"views"},
    "prefect": set(),
    "distributed": {"computing"},
    "click": {"cli"},
    "cloup": {"cli"},
    "rich": {"computing"},
    "safetensors": {"models"},
    "pydantic": {"config"},
    "kikuchipy": {"sources"},
    "nibabel": {"sources"},
    "monai": {"models"},
    "orix": {"sources", "analysis"},
    "sklearn": {"analysis", "run", "sources", "models"},
    "hdbscan": {"analysis"},
    "finufft": {"analysis"},
    "numba": {"analysis"},
    "threadpoolctl": {"analysis"},
    "dcor": {"analysis"},
}


def _modules() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(ROOT).parts[0].removesuffix(".py"), path)
        for path in sorted(ROOT.rglob("*.py"))
    ]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _imports(path: Path) -> set[str]:
    """Modules that are imported at run time: imports for types alone do not count."""
    found = set()
    tree = _tree(path)
    for_types: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for_types |= {child for statement in node.body for child in ast.walk(statement)}
    for node in set(ast.walk(tree)) - for_types:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "vaearr":
                found |= {f"vaearr.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_a_layer() -> None:
    assert {name for name, _ in _modules()} - {"__init__"} == set(LEVEL)


def test_imports_go_one_way() -> None:
    for name, path in _modules():
        for module in _imports(path) if name != "__init__" else ():
            parts = module.split(".")
            assert parts[:2] != ["vaearr", "flows"], f"{path} imports flows"
            if parts[0] == "vaearr" and len(parts) > 1:
                assert LEVEL[parts[1]] <= LEVEL[name], f"{path.name} ({name}) imports {module}"
                assert parts[1] not in TESTING or name in TESTING or path.stem == "demo", (
                    f"{path.name} uses vaearr.testing"
                )


def test_flows_are_called_by_name_in_one_place() -> None:
    assert [path.name for _, path in _modules() if '"vaearr.flows' in path.read_text()] == [
        "pages.py"
    ]


def test_one_library_one_home() -> None:
    for name, path in _modules():
        for library in {module.split(".")[0] for module in _imports(path)} & set(HOMES):
            assert name in HOMES[library], (
                f"{library} is imported in {path}, its home is {HOMES[library]}"
            )


@pytest.mark.parametrize("module", ["vaearr", "vaearr.cli"])
def test_import_is_light(module: str) -> None:
    heavy = ("torch", "holoviews", "hvplot", "prefect", "matplotlib", "xarray", "zarr", "sklearn")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"


def test_public_functions_load() -> None:
    for name in vaearr.__all__:
        assert callable(getattr(vaearr, name))
    assert set(vaearr.__all__) <= set(dir(vaearr))
    with pytest.raises(AttributeError, match="trian"):
        vaearr.trian  # noqa: B018


def test_nothing_is_unpickled() -> None:
    for _, path in _modules():
        text = path.read_text()
        assert "pickle" not in {m.split(".")[0] for m in _imports(path)}, path
        for call in text.split("torch.load(")[1:]:  # of checkpoints made elsewhere
            assert "weights_only=True" in call.split("\n")[0], path


def test_modules_and_functions_stay_short() -> None:
    for _, path in _modules():
        tree = _tree(path)
        n_documented = 0
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                n_documented += node.body[0].end_lineno - node.body[0].lineno + 1
        assert len(path.read_text().splitlines()) - n_documented <= 850, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
                assert (node.end_lineno or 0) - first.lineno <= 90, f"{path}: {node.name}"


PRIVATE = ("xarray.core", "xarray.backends.", "zarr.core", "dask._")
OF_NAMED_TUPLES = {"_replace", "_fields", "_asdict"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


@cache
def _private_names_of_the_package() -> set[str]:
    """Private functions, classes, variables and attributes that vaearr defines itself."""
    names = set()
    for _, path in _modules():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return names


def test_private_names_of_libraries_are_borrowed_in_one_place() -> None:
    for _, path in _modules():
        if path.stem == "borrowed":
            continue
        modules = {module for module in _imports(path) if module.startswith(PRIVATE)}
        attributes = {
            node.attr for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)
        }
        private_names = modules | set(filter(_is_private, attributes))
        borrowed_names = private_names - OF_NAMED_TUPLES - _private_names_of_the_package()
        assert not borrowed_names, f"{path} uses {borrowed_names}; see vaearr.computing.borrowed"


def test_nothing_is_faked_at_run_time() -> None:
    for _, path in _modules():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                faked = node.attr in {"__signature__", "__class__", "__globals__", "__wrapped__"}
                assert not faked, f"{path}:{node.lineno} sets {node.attr}"


def test_what_is_borrowed_is_there(tmp_path: Path) -> None:
    data = np.arange(6).reshape(2, 3)
    array = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(1, 3))
    lazy = borrowed.LazilyIndexedArray(borrowed.ZarrArrayWrapper(array))
    np.testing.assert_array_equal(xr.Variable(("y", "x"), lazy)[1].values, data[1])
