"""Errors as instructions: what was found, what was expected, what to do. Exit codes follow
sysexits.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec

INTERNAL_ERROR = 70  # exit code of a mistake in the program itself
MAX_NAMES = 40  # names that a message lists
MAX_LIST = 600  # characters of that list
MAX_NAME = 80  # characters of a name


class VaearrError(Exception):
    """Base of every error a user can cause; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(VaearrError, ValueError):
    """An invalid argument or setting (exit code 2)."""

    exit_code = 2


class UntrustedError(UsageError):
    """A file names third-party code that the user does not trust explicitly (exit code 2)."""


class DataError(VaearrError, ValueError):
    """An input file or array with invalid contents (exit code 65)."""

    exit_code = 65


class DamagedError(DataError):
    """A store with a damaged or missing file (exit code 65)."""


class SchemaError(DataError):
    """A Dataset that is not laid out as vaearr expects (exit code 65)."""


class RoiError(DataError):
    """A region of interest without enough scan points (exit code 65)."""


class TrainingError(DataError):
    """Training that cannot start or continue, such as a loss that is not finite (exit code 65)."""


class NoInputError(VaearrError, FileNotFoundError):
    """A file, store, run or variable that does not exist (exit code 66)."""

    exit_code = 66


class MissingExtraError(VaearrError, ImportError):
    """A feature whose optional packages are not installed (exit code 69)."""

    exit_code = 69


class ExistsError(VaearrError, FileExistsError):
    """A result that already exists and would be replaced (exit code 73)."""

    exit_code = 73


class WriteError(VaearrError, OSError):
    """The store cannot be written: disk full, read-only, no permission (exit code 74)."""

    exit_code = 74


class LockedError(VaearrError, OSError):
    """Another process writes to the store (exit code 75)."""

    exit_code = 75


def need(package: str, install: str, what: str) -> None:
    """Raise MissingExtraError unless a package can be imported; called before any work.

    install: the requirement for pip; what: the feature that needs it.
    """
    if find_spec(package) is None:
        raise MissingExtraError(
            f'{what} needs {package}, which is not installed: pip install "{install}"'
        )


def did_you_mean(
    name: str, known: Sequence[str], long_names: Mapping[str, str] | None = None
) -> str:
    """Return a hint for a misspelt name: the closest known name, then the known names.

    Upper and lower case count as equal. A name is also compared with the long names of known names.
    If it begins with a known name of two letters or more, this is close, such as Ti to titanium.
    """
    import difflib

    hint = ""
    if len(name) <= MAX_NAME:
        names = {long.lower(): text for text, long in (long_names or {}).items()}
        names |= {text.lower(): text for text in known}
        close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        close += [text for text in names if len(text) > 1 and name.lower().startswith(text)]
        if close:
            hint = f" Did you mean {shortened(names[close[0]])!r}?"
    return f"{hint} Known: {listed(known)}."


def listed(names: Iterable[object]) -> str:
    """Return names separated by commas; of many, the first ones and the number of the others."""
    texts = [shortened(str(name)) for name in names]
    first: list[str] = []
    for text in texts[:MAX_NAMES]:
        if sum(map(len, first)) > MAX_LIST:
            break
        first.append(text)
    line = ", ".join(first) or "none"
    n_more = len(texts) - len(first)
    return f"{line}, … ({n_more} more)" if n_more else line


def shortened(text: str) -> str:
    """Return a text of at most `MAX_NAME` characters, followed by … if it is cut."""
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…"
