"""Started in place of `ipykernel_launcher`: a kernel that reaches no network and takes vaearr's
warnings as errors.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
import warnings
from typing import Any

DPI = 100
_connect, _connect_ex, _lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _check(family: int, host: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_here(str(host)):
        raise ConnectionRefusedError(f"a notebook asked for {host}; notebooks need no network.")


def _is_here(host: str) -> bool:
    if host in ("localhost", "", "None"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def connect(self: socket.socket, address: Any) -> None:
    _check(self.family, address[0])
    _connect(self, address)


def connect_ex(self: socket.socket, address: Any) -> int:
    _check(self.family, address[0])
    return _connect_ex(self, address)


def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    _check(socket.AF_INET, host)
    return _lookup(host, *args, **kwargs)


def give_pictures() -> None:
    """Show HoloViews objects as PNG as well, which a stored notebook keeps."""
    from holoviews import Store
    from holoviews.core import Dimensioned

    from vaearr.views.paper import file_of, on_paper

    def picture(view: Any) -> Any:
        return {"image/png": file_of(on_paper(view, titles=True), ".png", DPI)}, {}

    Store.set_display_hook("png", Dimensioned, picture)


if __name__ == "__main__":
    from ipykernel import kernelapp

    socket.socket.connect = connect  # type: ignore[method-assign]
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
    socket.getaddrinfo = getaddrinfo
    if "--pictures" in sys.argv:
        sys.argv.remove("--pictures")
        give_pictures()
    app = kernelapp.IPKernelApp.instance()
    app.initialize()
    for whose in (r"vaearr(\.|$)", r"__main__$"):  # after IPython has set its own
        warnings.filterwarnings("error", module=whose)
    app.start()
