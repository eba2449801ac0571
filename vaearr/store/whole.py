"""A store for readers in which a file that is not as it was published is an error: zarr reads NaN or 0 for one that is
gone, and decodes what it finds."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from vaearr.errors import DamagedError
from vaearr.store.copies import shown
from vaearr.store.folders import is_there
from vaearr.store.seals import SEAL, read_seal

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.abc.store import ByteRequest


class WholeStore(LocalStore):
    """Files of a store on this machine; those that the checksums of an array name must be what was written."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file, None for one that never was. Raises DamagedError."""
        wrong = ""
        for _ in range(2):  # another array may have taken its place meanwhile
            is_there(self.root, key)
            found = await super().get(key, prototype, byte_range)
            wrong = _wrong(self.root / key, self.root, found, is_part=byte_range is not None)
            if not wrong:
                return found
        named = shown(self.root)
        raise DamagedError(f"{named} is damaged: {key} {wrong}; 'vaearr verify {named}' says what to do.")


def _wrong(path: Path, root: Path, found: Buffer | None, *, is_part: bool) -> str:
    """What is wrong with the bytes of a file, by the checksums of its array; nothing where it has none."""
    folder = next((folder for folder in path.parents if folder == root.parent or (folder / SEAL).exists()), root.parent)
    try:
        wanted = {} if folder == root.parent else _sums(folder, (folder / SEAL).stat().st_mtime_ns)
    except (OSError, ValueError):
        return ""  # `vaearr verify` tells
    if (digest := wanted.get(str(path.relative_to(folder)))) is None:
        return ""
    if found is None:
        return "is missing"
    is_whole = is_part or hashlib.sha256(found.to_bytes()).hexdigest() == digest
    return "" if is_whole else "is not what was written" if len(found) else "is empty"


@lru_cache(maxsize=256)
def _sums(folder: Path, changed: int) -> dict[str, str]:
    """The checksums of an array's folder, as they were at a time of change."""
    return read_seal(folder) or {}
