"""Is every array of a store on object storage whole? Each object there is held against the checksums, streamed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vaearr import names as n
from vaearr.store.checks import ArrayCheck, Found, OnFile
from vaearr.store.copies import alone, objects_of, record_of, save
from vaearr.store.objects import AT_ONCE, Objects
from vaearr.store.seals import METADATA, SEAL, nodes, parse_seal, plain_folders, sha256_of


def check_objects(copy: Path, on_file: OnFile) -> Iterator[ArrayCheck]:
    """Every array of a working copy's store, by the objects that are there; on_file is told the bytes of each.

    Files of the copy that are not those that were written are forgotten, so that the next command fetches them anew.
    """
    record = record_of(copy)
    assert record is not None
    objects = objects_of(record)
    spoilt: list[str] = []
    for key, folder, is_array in nodes(copy):
        if is_array:
            yield _check(objects, key, folder, on_file, spoilt)
        else:
            for plain in plain_folders(folder):
                if (plain / SEAL).exists():
                    yield _check(objects, f"{key}/{plain.name}", plain, on_file, spoilt)
    if spoilt:
        with alone(copy):
            record = record_of(copy)
            assert record is not None
            record.root = None
            for name in spoilt:
                record.objects.pop(name, None)
            save(copy, record)


def _check(objects: Objects, key: str, folder: Path, on_file: OnFile, spoilt: list[str]) -> ArrayCheck:
    sizes = {stamp.name.removeprefix(f"{key}/"): stamp.size for stamp in objects.below(f"{key}/")}
    sealed = objects.fetch(f"{key}/{SEAL}")
    try:
        seal = parse_seal(sealed[0].decode()) if sealed else None
    except ValueError as error:
        return ArrayCheck(key, True, 0, 0, (Found(key, key, f"its checksums cannot be read ({error})"),))
    if seal is None:
        return ArrayCheck(key, True, 0, 0, (Found(key, f"{key}/{SEAL}", "it is missing"),))
    found = [Found(key, f"{key}/{name}", "it is missing") for name in seal if name not in sizes]
    if METADATA in seal:
        extra = sizes.keys() - seal.keys() - {SEAL}
        found += [Found(key, f"{key}/{name}", "it does not belong there") for name in sorted(extra)]
    names = [name for name in seal if name in sizes]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sums = pool.map(lambda name: _sha256(objects, f"{key}/{name}"), names)
        for name, got in zip(names, sums, strict=True):
            on_file(sizes[name])
            if got != seal[name]:
                found.append(Found(key, f"{key}/{name}", "its bytes are not those that were written"))
            elif not (key == n.PATTERNS and name != METADATA) and not _is_here(folder / name, got):
                spoilt.append(f"{key}/{name}")
    return ArrayCheck(key, True, len(names), sum(sizes[name] for name in names), tuple(found))


def _sha256(objects: Objects, name: str) -> str:
    seal = hashlib.sha256()
    for piece in objects.pieces(name):
        seal.update(piece)
    return seal.hexdigest()


def _is_here(file: Path, seal: str) -> bool:
    return file.is_file() and sha256_of(file) == seal
