"""The page on a local address: served by bokeh's server, from this machine alone unless a host is named."""

from __future__ import annotations

import html
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaearr.app.state import State, current, open_state, origin_words, summary
from vaearr.errors import MissingExtraError, UsageError, VaearrError
from vaearr.names import DEFAULT_RUN
from vaearr.plots.common import text

LOOPBACK = "127.0.0.1"
LIGHT_NAME, DARK_NAME = "light", "dark"
TRIES = 5  # a port found free may be taken before it is ours


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
    state.tunes = True  # nothing else runs in this process meanwhile
    server = serve(state, port=port, host=host)
    with _stopped_by_signals(server.io_loop):
        if not is_loopback(host):
            say(f"warning: everybody who reaches {host} can read {state.path} through this page; there is no password")
        say(f"{summary(state)}\nis at {address(server, host)} (Ctrl-C ends it)")
        if show:
            import webbrowser

            server.io_loop.add_callback(webbrowser.open, address(server, host))
        server.io_loop.start()
    say("closed")


@contextmanager
def _stopped_by_signals(loop: Any) -> Iterator[None]:
    """SIGINT and SIGTERM stop a loop; afterwards they do what they did before. Other threads get no signals."""

    def stop(number: int, frame: Any) -> None:
        loop.add_callback_from_signal(loop.stop)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(state: State, *, port: int = 0, host: str = LOOPBACK) -> Any:
    """A bokeh server of the page, listening and not yet running: `server.io_loop.start()` runs it."""
    pn = _panel()
    if not 0 <= port < 65536:
        raise UsageError(f"port {port} is not one of 0 … 65535.")
    held = [state]

    def made() -> Any:
        try:
            held[0] = current(held[0])
            return page(held[0])
        except (VaearrError, OSError) as error:
            return pn.pane.HTML(f'<p role="alert">{html.escape(text(error))}</p>')

    for _ in range(1 if port else TRIES):
        at = _free_port(host, port)
        try:
            return pn.serve(
                made, port=at, address=host, websocket_origin=origins(host, at), show=False, start=False,
                title=f"vaearr: {text(state.path.name)}", verbose=False,
            )  # fmt: skip
        except OSError as error:
            problem = error.strerror or str(error)
    raise UsageError(f"cannot listen at {host}:{port} ({problem}); choose another.")


def page(state: State) -> Any:
    """The page of one visitor, light or dark as they chose last (a cookie of this address)."""
    pn = _panel()
    from vaearr.app.template import COOKIE, PAGE, shades
    from vaearr.app.views import Explorer

    is_dark = pn.state.cookies.get(COOKIE) == DARK_NAME
    parts = Explorer(state, is_dark=is_dark).parts()
    template = pn.Template(PAGE, design=pn.theme.Native, theme=pn.theme.DarkTheme if is_dark else pn.theme.DefaultTheme)
    for name, value in {
        "summary": summary(state), "origin": origin_words(state), "shades": shades(is_dark),
        "scheme": DARK_NAME if is_dark else LIGHT_NAME, "other": LIGHT_NAME if is_dark else DARK_NAME,
        "cookie": COOKIE, "has_map": "map" in parts,
    }.items():  # fmt: skip
        template.add_variable(name, html.escape(value) if isinstance(value, str) else value)
    for name, part in parts.items():
        template.add_panel(name, part)
    pn.state.onload(state.load_aside)
    return template


def _free_port(host: str, port: int) -> int:
    """The port, or where it is 0 any, that nobody listens at. Raises UsageError where there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise UsageError(f"cannot listen at {host}:{port} ({error.strerror or error}); choose another.") from None


def origins(host: str, port: int) -> list[str]:
    """Only pages from the server's own address may talk to it: another site in the same browser may not."""
    names = {host, *(("localhost", LOOPBACK) if is_loopback(host) else ())}
    return [f"{f'[{name}]' if ':' in name else name}:{port}" for name in sorted(names)]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(server: Any, host: str) -> str:
    """Where the page is."""
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}/"


def _panel() -> Any:
    try:
        import panel as pn
    except ImportError as error:
        raise MissingExtraError(
            f'the explorer needs panel ({error}); install it with: pip install "vaearr[views]"'
        ) from None
    return pn
