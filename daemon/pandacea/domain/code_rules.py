"""Rules that a script is checked by before it is queued: an early, clear error. They are not the boundary; the sandbox is.

Code that means to pass passes every rule (`__import__`, ctypes, a pickle): they save honest Spenders a
charged run that could not have worked, and apply what the Earner refuses by name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pandacea.domain.limits import MAX_CODE_BYTES

_COOKIE: Final = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_MENTIONED: Final = (
    *("numpy", "pandas", "pyarrow", "scipy", "sklearn", "statsmodels", "xgboost", "lightgbm", "torch", "matplotlib", "seaborn"),
    *("safetensors", "skops", "syft"),
)
"""Modules that a refusal names as being there, where they are; the whole list is published."""
_SHOWN_CHARACTERS: Final = 60
_UTF8: Final = frozenset({"utf-8", "utf8", "utf_8", "u8"})


@dataclass(frozen=True, slots=True)
class CodeRules:
    """What is refused: `refused_imports`, top-level modules by name; with `available` (None: not known), every other module."""

    refused_imports: frozenset[str] = frozenset({"os", "sys"})
    available: frozenset[str] | None = None
    max_bytes: int = MAX_CODE_BYTES


@dataclass(frozen=True, slots=True)
class ImportedModule:
    """One import as written: `a.b` as a dotted name, `""` for a relative one; the line counts from 1.

    `optional`: the script catches its ImportError.
    """

    module: str
    line: int
    optional: bool = False


@dataclass(frozen=True, slots=True)
class CodeViolation:
    """Why a script is refused: a problem code, a sentence, and the line when there is one."""

    code: str
    detail: str
    line: int | None = None


def check_text(code: str, rules: CodeRules) -> CodeViolation | None:
    """Return the first fault of a script's text, before anything parses it; None: it has none."""
    try:
        size = len(code.encode("utf-8"))
    except UnicodeEncodeError as error:
        return CodeViolation("code-not-utf8", f"The script holds half of a surrogate pair at character {error.start}.")
    if size > rules.max_bytes:
        return CodeViolation("code-too-large", f"The script has {size:,} bytes; at most {rules.max_bytes:,} are taken.")
    if "\0" in code:
        return CodeViolation("code-nul", "The script holds a NUL character; Python does not read past it.", _line_of(code, "\0"))
    for number, line in enumerate(code.split("\n", 2)[:2], 1):
        cookie = _COOKIE.match(line)
        if cookie is not None and cookie[1].lower() not in _UTF8:
            return CodeViolation("code-not-utf8", "The script declares an encoding other than UTF-8; remove that line.", number)
    return None


def check_imports(imports: Iterable[ImportedModule], rules: CodeRules) -> CodeViolation | None:
    """Return the first import that is refused or cannot work; None: all can."""
    for found in imports:
        top = found.module.partition(".")[0]
        if not top:
            return CodeViolation("code-import-missing", "A script is not a package: a relative import cannot work.", found.line)
        if top in rules.refused_imports:
            return CodeViolation(
                "code-import-refused",
                f"This node refuses scripts that import {top}. Data comes in as variables; files go to the working folder.",
                found.line,
            )
        if rules.available is not None and top not in rules.available and not found.optional:
            return CodeViolation("code-import-missing", _explain_missing(top, rules.available), found.line)
    return None


def _explain_missing(module: str, available: frozenset[str]) -> str:
    """Say what is missing, what is there, and how to get more; `module` is the script's, of any length."""
    close = difflib.get_close_matches(module, available, 1, 0.8) if len(module) <= _SHOWN_CHARACTERS else []
    there = ", ".join(name for name in _MENTIONED if name in available)
    return (
        f"The environment has no module {ascii(module[:_SHOWN_CHARACTERS])[1:-1]}{f'; did you mean {close[0]}?' if close else '.'} "
        f"{f'It has {there} and more: a' if there else 'A'}ll its packages are listed under environment at /.well-known/pandacea. "
        "Ask the Earner for others (pandacea environment add NAME), or catch the ImportError if the script can do without."
    )


def _line_of(code: str, what: str) -> int:
    return code.count("\n", 0, code.index(what)) + 1
