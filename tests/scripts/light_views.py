"""Print each library that importing vaearr, describing and viewing load but must not."""

import sys

import vaearr as va


def report(step: str, *libraries: str) -> None:
    """Print the libraries that are loaded after a step."""
    for library in libraries:
        if library in sys.modules:
            print(f"{step} loads {library}")


report("import", "torch", "sklearn", "xarray", "holoviews")
ds = va.open_store(sys.argv[1])
run = va.load_run(sys.argv[1])
va.describe(ds)
va.describe(run)
report("describe", "torch", "sklearn", "holoviews")
va.view(ds.BC)
report("view of a map", "torch", "sklearn", "datashader", "numba")
va.view(ds)
va.view(run)
report("view of a Dataset", "torch", "sklearn", "datashader", "numba")
