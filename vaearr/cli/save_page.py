"""What `vaearr explore STORE --save FILE.html` does: the explorer as one file that works without a network."""

from __future__ import annotations

from pathlib import Path

from vaearr.cli.common import say


def save(store: Path, run: str, out: Path, *, by: str | None = None, seed: int = 0, overwrite: bool = False) -> None:
    """Save the page and say where it is and how large it is. Raises as `vaearr.app.saved.save_page`."""
    from vaearr.app.saved import save_page

    written = save_page(store, run, out, by=by, seed=seed, overwrite=overwrite)
    say(f"written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
