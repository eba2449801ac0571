"""Shipped text is plain English: turns of phrase that read as translated do not appear in it."""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# phrase: what to write instead
BANNED = {
    r"(told|tells?)(?!( them)? apart)": "reported, detected, stated, distinguish",
    r"made otherwise": "created with different settings",
    r"beside": "next to, in addition to, compared with",
    r"goes on|going on|gone on|go on with": "continues, resumes",
    r"what is there|is there already": "existing, already exists",
    r"as it was": "unchanged, in its previous state",
    r"of others|theirs|of ours|of yours": "third-party, of vaearr, your",
    r"alike": "similar",
    r"judge[ds]?": "evaluate, assess, decide",
    r"as asked|asked for": "requested",
    r"the way between": "interpolation",
    r"a fault|a wrong": "an error",
    r"ends its fall": "stops improving",
    r"what is seen": "preprocessed input",
    r"latents know|they know": "the latents predict",
    r"learned on (it|them)": "trained on",
    r"holds? (every|each) \w+ against": "checks against, compares with",
    r"by whatever|in whatever way": "by any, however",
    r"with what they mean and where": "and their interpretation",
    r"a look around": "exploration",
    r"side by side by side": "next to each other",
}
# file, phrase as it stands there, reason
EXCEPTIONS: set[tuple[str, str]] = set()


def _texts() -> Iterator[tuple[str, int, str]]:
    """File, line and text of everything that a reader meets."""
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")]
    pages += sorted((ROOT / "docs").rglob("*.md"))
    for page in pages:
        if "_build" not in page.parts:
            for number, line in enumerate(page.read_text().splitlines(), 1):
                yield str(page.relative_to(ROOT)), number, line
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
            if cell["cell_type"] == "markdown":
                yield str(notebook.relative_to(ROOT)), number, "".join(cell["source"])
    for folder in ("vaearr", "flows"):
        for module in sorted((ROOT / folder).rglob("*.py")):
            yield from _texts_of(module)


def _texts_of(module: Path) -> Iterator[tuple[str, int, str]]:
    """Comments and strings of more than one word."""
    for token in tokenize.generate_tokens(io.StringIO(module.read_text()).readline):
        is_text = token.type == tokenize.STRING and " " in token.string
        if token.type == tokenize.COMMENT or is_text:
            yield str(module.relative_to(ROOT)), token.start[0], token.string


def _problems() -> Iterator[str]:
    patterns = {re.compile(rf"\b({phrase})\b", re.IGNORECASE): BANNED[phrase] for phrase in BANNED}
    for file, line, text in _texts():
        for pattern, instead in patterns.items():
            for match in pattern.finditer(text):
                if (file, match.group()) not in EXCEPTIONS:
                    yield f"{file}:{line}: {match.group()!r}; write: {instead}"


def test_no_banned_phrase_is_shipped() -> None:
    problems = list(_problems())
    assert not problems, f"{len(problems)} banned phrases:\n" + "\n".join(problems)
