"""The page on a local address: served by bokeh's server, from this machine alone unless a host is named."""

from __future__ import annotations

import html
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaearr.app.state import State, open_state, summary
from vaearr.errors import MissingExtraError, UsageError
from vaearr.names import DEFAULT_RUN

LOOPBACK = "127.0.0.1"
STYLE = ":root { --bokeh-base-font: system-ui, sans-serif; } #header { padding: 2px 10px; }"


def explore(
    store: str | Path,
    run: str = DEFAULT_RUN,
    *,
    port: int = 0,
    host: str = LOOPBACK,
    show: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page of a store and a run until interrupted.

    port: 0 takes a free one. host: an address of this machine; another than a loopback one lets everybody in the
    network read the store through the page, and `say` warns of it. Raises NoInputError for a run or latents that are
    not there, UsageError for a host or port that cannot be used, MissingExtraError without panel.
    """
    state = open_state(store, run)
    server = serve(state, port=port, host=host)
    if not is_loopback(host):
        say(f"warning: everybody who reaches {host} can read {state.path} through this page; there is no password")
    say(f"{summary(state)}\nis at {address(server, host)} (Ctrl-C ends it)")
    if show:
        import webbrowser

        server.io_loop.add_callback(webbrowser.open, address(server, host))
    server.io_loop.start()


def serve(state: State, *, port: int = 0, host: str = LOOPBACK) -> Any:
    """A bokeh server of the page, listening and not yet running: `server.io_loop.start()` runs it."""
    pn = _panel()
    if not 0 <= port < 65536:
        raise UsageError(f"port {port} is not one of 0 … 65535.")
    try:
        server = pn.serve(
            lambda: page(state), port=port, address=host, show=False, start=False, title=f"vaearr: {state.path.name}",
            verbose=False,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"cannot listen at {host}:{port} ({error.strerror or error}); choose another.") from None
    _allow(server, host)
    return server


def page(state: State) -> Any:
    """The page of one visitor, light or dark by `?theme=dark`."""
    pn = _panel()
    from vaearr.app.views import Explorer

    given = pn.state.session_args.get("theme", [b"default"]) if pn.state.session_args else [b"default"]
    is_dark = given[0] == b"dark"
    template = _template(pn)(title="vaearr", theme="dark" if is_dark else "default")
    template.config.raw_css = [STYLE]
    link = (
        '<a style="color: inherit" href="?theme=default">light</a>'
        if is_dark
        else '<a style="color: inherit" href="?theme=dark">dark</a>'
    )
    words = html.escape(summary(state))
    template.header.append(
        pn.pane.HTML(f'<span class="about">{words}</span> &nbsp; {link}', sizing_mode="stretch_width")
    )
    template.main.append(Explorer(state).page())
    pn.state.onload(state.load_aside)
    return template


def _template(pn: Any) -> Any:
    """Panel's plainest template, without the typeface that it fetches from another host."""

    class Page(pn.template.VanillaTemplate):
        _resources: dict[str, Any] = {"css": {}}  # noqa: RUF012  # panel looks for it on the class

    return Page


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(server: Any, host: str) -> str:
    """Where the page is."""
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}/"


def _allow(server: Any, host: str) -> None:
    """Only pages from the server's own address may talk to it: another site in the same browser may not."""
    names = {host, *(("localhost", LOOPBACK) if is_loopback(host) else ())}
    server._tornado._websocket_origins = {f"{name}:{server.port}" for name in names}


def _panel() -> Any:
    try:
        import panel as pn
    except ImportError as error:
        raise MissingExtraError(
            f'the explorer needs panel ({error}); install it with: pip install "vaearr[views]"'
        ) from None
    return pn
