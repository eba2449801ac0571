"""A store for readers in which a chunk that was published and is gone is an error, where zarr would read NaN or 0."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from vaearr.errors import DataError
from vaearr.store.copies import shown
from vaearr.store.seals import METADATA, SEAL, read_seal

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class WholeStore(LocalStore):
    """Files of a store on this machine; those that the checksums of an array name must be there, and be files."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file, None for one that never was."""
        path = self.root / key
        _refuse_pipes(path)
        found = await super().get(key, prototype, byte_range)
        if found is None and path.name != METADATA and self._was_published(path):
            found = await super().get(key, prototype, byte_range)  # another array may have taken its place meanwhile
            if found is None:
                named = shown(self.root)
                raise DataError(f"{named} is damaged: {key} is missing; 'vaearr verify {named}' says what to do.")
        return found

    def _was_published(self, path: Path) -> bool:
        """Whether the checksums of its array name a file; looked up only where one is missing."""
        for folder in path.parents:
            if folder == self.root.parent:
                return False
            if (folder / SEAL).exists():
                try:
                    return str(path.relative_to(folder)) in (read_seal(folder) or {})
                except (OSError, ValueError):
                    return False  # `vaearr verify` tells
        return False


def _refuse_pipes(path: Path) -> None:
    """Raise DataError for what is there and is no file: to read a pipe is to wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"{path} is not an ordinary file; restore it from a copy.")
