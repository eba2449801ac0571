"""The page on a local address: served by bokeh's server, from this machine alone unless a host is
named.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from vaearr.app.samples import Runs, has_network, summary
from vaearr.computing import borrowed
from vaearr.errors import UsageError
from vaearr.views.common import text

if TYPE_CHECKING:
    from vaearr import Run

log = logging.getLogger("vaearr")

CHECK = 1000  # milliseconds between looks for pages that were closed


def serve(run: Run, *, port: int, host: str, show: bool) -> Any:
    """Serve the page of a run, see `Run.explore`."""
    import panel as pn

    runs = Runs(run)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # before the server, which leaves sockets open that it cannot bind
            probe.bind((host, port))
        if has_network(run):
            run.model.eval()  # loads the network, which takes seconds
        server = pn.serve(
            lambda: page(runs),
            port=port,
            address=host,
            show=False,
            start=False,
            verbose=False,
            title=f"vaearr: {text(run.path.name)}",
            check_unused_sessions_milliseconds=CHECK,
        )
    except (OSError, OverflowError) as error:  # the latter for a port beyond 65535
        raise UsageError(f"cannot listen at {host}:{port} ({error}); choose another.") from None
    _guard(server, host)
    if host != "localhost" and not getattr(_address(host), "is_loopback", False):
        log.warning(
            f"everybody who reaches {host} can read {run.path} through this page; there is no "
            "password"
        )
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{server.port}/"
    print(f"{summary(run)}\nis at {address} (Ctrl-C ends it)", file=sys.stderr)
    if show:
        import webbrowser

        server.io_loop.add_callback(webbrowser.open, address)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return server.run_until_shutdown()
    server.start()  # on the loop of a notebook
    return server


def page(runs: Runs) -> Any:
    """The page of one visitor, in the state that its address names."""
    import panel as pn
    from panel.io.location import Location

    from vaearr.app.design import TEMPLATE, Design
    from vaearr.app.page import Explorer

    state = {name: values[0].decode() for name, values in pn.state.session_args.items()}
    name = state.get("run", runs.run.name)
    explorer = Explorer(runs, name if name in runs.names else runs.run.name)
    template = pn.Template(TEMPLATE, location=True, design=Design)
    template.add_panel("page", explorer.view())
    if pn.state.curdoc is not None:
        location = Location(search=f"?{urlencode(state)}")
        borrowed.set_location(pn.state, location)
        explorer.remember(location)
    return template


def _guard(server: Any, host: str) -> None:
    """Answer requests that `refusal` refuses with its words, on all paths of the server."""
    from tornado.routing import Matcher, Rule
    from tornado.web import RequestHandler

    class Refused(RequestHandler):
        def initialize(self, words: str) -> None:
            self.words = words

        def prepare(self) -> None:
            self.set_status(403)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"{self.words}\n")

    class Unwanted(Matcher):
        def match(self, request: Any) -> dict[str, Any] | None:
            words = refusal(request, host)
            return {"target_kwargs": {"words": words}} if words else None

    application = borrowed.tornado_application(server)
    application.websocket_origins.add("*")  # which of them may talk is decided before
    application.default_router.rules.insert(0, Rule(Unwanted(), Refused))


def refusal(request: Any, host: str) -> str | None:
    """Words for a request that is not answered, None for one that is.

    Answered are those to an address, or to a name of this machine: another site's name may be made
    to lead here. Only the page itself may talk to the server, and another site can link to it, but
    not load it into its own pages.
    """
    name = request.host_name.strip("[]").lower()
    if not _address(name) and name not in ("localhost", host.lower(), socket.gethostname().lower()):
        return (
            f"this page is not at {name}; open it by the address it was started with, or start it "
            "with --host."
        )
    if request.path.endswith("/ws"):
        origin = urlsplit(request.headers.get("Origin", "")).netloc.lower()
        return None if origin == request.host.lower() else "only the page itself may connect here."
    site = request.headers.get("Sec-Fetch-Site", "none")
    kind = request.headers.get("Sec-Fetch-Dest")
    if site not in ("none", "same-origin") and kind != "document":
        return "other sites may link to this page, not load it."
    return None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host's name is, None for a name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
