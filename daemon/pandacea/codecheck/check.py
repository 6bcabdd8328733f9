"""Check a script before it is queued. It is parsed in a small process with limits, never in the node."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from pandacea.codecheck.limited_child import LimitedChild
from pandacea.domain.code_rules import CodeRules, CodeViolation, ImportedModule, check_imports, check_text
from pandacea.errors import ProblemError
from pandacea_sdk.protocol.json_types import JsonObject

CHILD: Final = Path(__file__).with_name("check_child.py")
CACHE_SIZE: Final = 256
"""Scripts whose verdict is remembered."""


class ChildCodeChecker:
    """`flows.ports.CodeChecker` over `python -I -S` children, at most one at a time for each owner.

    Most take a few tens of milliseconds, but a few hundred bytes can take all the seconds that a child has. So scripts of one owner wait
    for each other, and those of others for one of them at most.
    """

    def __init__(
        self,
        refused_imports: frozenset[str] = frozenset({"os", "sys"}),
        available: frozenset[str] | None = None,
        python: str = sys.executable,
    ) -> None:
        """`available`: modules of the environment beside Python's own, None when not known; `python`: whose grammar counts."""
        known = None if available is None else available | sys.stdlib_module_names
        self._rules = CodeRules(refused_imports=refused_imports, available=known)
        self._child = LimitedChild(CHILD, python)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By owner; a lock is dropped with the last check that waits for it."""
        self._verdicts: OrderedDict[bytes, CodeViolation | None] = OrderedDict()

    async def check_code(self, code: str, owner: str = "") -> None:
        """Refuse a script that cannot run here. `owner`: who sent it.

        Raises:
            ProblemError: with one of the codes code-not-utf8, code-too-large, code-nul, code-syntax, code-too-complex,
                code-import-refused, code-import-missing, and the line when there is one.
            Unavailable: the checking process could not be started, or failed by itself.
        """
        violation = check_text(code, self._rules) or await self._parse_in_child(code, owner)
        if violation is not None:
            raise ProblemError(violation.code, violation.detail, line=violation.line)

    async def _parse_in_child(self, code: str, owner: str) -> CodeViolation | None:
        key = hashlib.sha256(code.encode()).digest()
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
            return self._verdicts[key]
        async with self._turns.setdefault(owner, asyncio.Lock()):
            out = await self._child.run_over(code)
        violation = self._judge(json.loads(out) if out else {})
        self._verdicts[key] = violation
        if len(self._verdicts) > CACHE_SIZE:
            self._verdicts.popitem(last=False)
        return violation

    def _judge(self, found: JsonObject) -> CodeViolation | None:
        if "imports" in found:
            return check_imports((ImportedModule(*entry) for entry in found["imports"]), self._rules)
        if "syntax" in found:
            return CodeViolation("code-syntax", f"The script does not compile: {found['syntax']}.", found["line"])
        return CodeViolation(
            "code-too-complex", "The script is nested too deeply or is too complex to be parsed within the limits."
        )
