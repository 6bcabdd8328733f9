"""The code policy: an early error with its line, made where a hostile script can exhaust nothing of the node's."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from pathlib import Path

import pytest

from pandacea.codecheck.check import ChildCodeChecker
from pandacea.domain.code_rules import CodeRules, check_text
from pandacea.errors import ProblemError, Unavailable

FAULTS: dict[str, tuple[str, str, int | None]] = {
    "import": ("x = 1\nimport os\n", "code-import-refused", 2),
    "import-as": ("import sys as s", "code-import-refused", 1),
    "from": ("from os import path", "code-import-refused", 1),
    "submodule": ("import os.path", "code-import-refused", 1),
    "second-name": ("import json, sys", "code-import-refused", 1),
    "inside": ("def f():\n  if 1:\n    import os\n", "code-import-refused", 3),
    "by-call": ("m = __import__('os')", "code-import-refused", 1),
    "by-importlib": ("import importlib\nimportlib.import_module('sys')", "code-import-refused", 2),
    "relative": ("from . import x", "code-import-missing", 1),
    "syntax": ("x = 1\ny = = 2\n", "code-syntax", 2),
    "compiler": ("x = 1\nreturn x\n", "code-syntax", 2),
    "indent": ("if 1:\nx", "code-syntax", 2),
    "nul": ("x = 1\ny = '\0'", "code-nul", 2),
    "surrogate": ("x = '\ud800'", "code-not-utf8", None),
    "cookie": ("#!/x\n# -*- coding: utf-7 -*-\n", "code-not-utf8", 2),
    "cookie-latin": ("# vim: set fileencoding=latin-1 :", "code-not-utf8", 1),
    "large": ("#" * 102_401, "code-too-large", None),
    "first-of-two": ("import sys\nimport os", "code-import-refused", 1),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_has_its_code_and_line(name: str) -> None:
    """Size, encoding, NUL, syntax and refused imports: a typed refusal that says where."""
    code, expected, line = FAULTS[name]
    with pytest.raises(ProblemError) as caught:
        await ChildCodeChecker().check_code(code)
    assert caught.value.code == expected
    assert caught.value.context["line"] == line
    assert caught.value.detail


@pytest.mark.parametrize(
    "code",
    [
        "",
        "print('hello')",
        "import torch, pandas as pd\nfrom sklearn.linear_model import LinearRegression\n",
        "# -*- coding: utf-8 -*-\nx = 'ä'",
        "import oslo\nimport system\nos = 1\nsys = 2",
        "async def f():\n    return [x async for x in y]",
        "x = 'import os'",
        "#" * 102_400,
    ],
)
async def test_honest_scripts_pass(code: str) -> None:
    """What runs is let through, whatever it names its variables."""
    await ChildCodeChecker().check_code(code)


HOSTILE = {
    "brackets": "(" * 100_000,
    "nested-lists": "x = " + "[" * 50_000 + "]" * 50_000,
    "unary": "x = " + "-" * 102_000 + "1",
    "not": "x = " + "not " * 25_000 + "1",
    "attributes": "x = a" + ".b" * 50_000,
    "calls": "x = a" + "()" * 50_000,
    "subscripts": "x = a" + "[0]" * 30_000,
    "lambdas": "x = " + "lambda:" * 14_000 + "1",
    "ifs": "".join(" " * n + "if 1:\n" for n in range(400)),
    "power": "x = " + "2**" * 30_000 + "2",
    "concatenation": "x = " + "'a'\n" * 25_000,
    "constant-folding": "x = ((1 << 99) ** 99) ** 99\ny = 'a' * 4096 * 4096 * 4096",
    "f-strings": "x = " + "f'{" * 30_000,
    "digits": "x = " + "9" * 100_000,
    "statements": "a;" * 51_000,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_script_exhausts_only_the_child(name: str) -> None:
    """Deep, wide or folding: within seconds the script passes or is refused, and this process grew by nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    verdict = await asyncio.gather(ChildCodeChecker().check_code(HOSTILE[name]), return_exceptions=True)
    assert verdict[0] is None or getattr(verdict[0], "code", None) in {"code-too-complex", "code-syntax"}
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "kilobytes of this process"


async def test_the_script_is_never_run() -> None:
    """Not its body, not its decorators or defaults, not at compile time."""
    await asyncio.wait_for(ChildCodeChecker().check_code("while True: pass\nraise SystemExit(1)"), 5)


async def test_the_earner_chooses_what_is_refused() -> None:
    """`refused_imports` is configuration; with the environment's modules known, an import that cannot work is said so."""
    await ChildCodeChecker(refused_imports=frozenset()).check_code("import os, sys")
    with pytest.raises(ProblemError) as caught:
        await ChildCodeChecker(available=frozenset({"torch"})).check_code("import torch\nimport tensorflow")
    assert (caught.value.code, caught.value.context["line"]) == ("code-import-missing", 2)


async def test_a_missing_module_is_said_with_what_is_there_and_how_to_ask() -> None:
    """A slip of the keyboard is recognised; an import whose error the script catches is its own affair, and Python's modules are known."""
    checker = ChildCodeChecker(available=frozenset({"numpy", "seaborn", "sklearn"}))
    with pytest.raises(ProblemError) as caught:
        await checker.check_code("import seaborne")
    assert "has no module seaborne; did you mean seaborn? It has numpy, sklearn, seaborn and more" in caught.value.detail
    assert "/.well-known/pandacea" in caught.value.detail
    assert "pandacea environment add" in caught.value.detail
    with pytest.raises(ProblemError) as caught:
        await checker.check_code("import " + "x" * 90_000)
    assert len(caught.value.detail) < 500
    for guarded in ("ImportError", "(KeyError, ModuleNotFoundError)", "Exception"):
        await checker.check_code(f"import json, numpy.random\ntry:\n  if 1:\n    import cupy\nexcept {guarded}:\n  cupy = None")
    for unguarded in ("try:\n  x = 1\nexcept ImportError:\n  import cupy", "try:\n  import cupy\nexcept KeyError:\n  pass"):
        with pytest.raises(ProblemError):
            await checker.check_code(unguarded)
    with pytest.raises(ProblemError) as caught:
        await checker.check_code("try:\n  import os\nexcept ImportError:\n  pass")
    assert caught.value.code == "code-import-refused"


async def test_a_script_seen_before_is_not_parsed_again() -> None:
    """The verdict depends on the text alone: asking twice costs one process."""
    checker = ChildCodeChecker()
    await checker.check_code("x = 1")
    start = time.monotonic()
    for _ in range(100):
        await checker.check_code("x = 1")
    assert time.monotonic() - start < 0.1


async def test_a_missing_interpreter_is_unavailable_not_a_pass() -> None:
    """When the check cannot be made the script is not let through."""
    with pytest.raises(Unavailable):
        await ChildCodeChecker(python="/nonexistent/python").check_code("x = 1")


async def test_cancelling_leaves_no_child() -> None:
    """A request given up takes its child with it."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    others = set(children.read_text().split())  # servers that other tests keep
    task = asyncio.create_task(ChildCodeChecker().check_code("x = 1"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):  # killed is not yet reaped: the kernel takes its moment on a busy machine
        while set(children.read_text().split()) - others:
            await asyncio.sleep(0.01)


def test_the_text_rules_are_pure() -> None:
    """What needs no parser is decided without a process."""
    assert check_text("x", CodeRules()) is None
    violation = check_text("x" * 11, CodeRules(max_bytes=10))
    assert violation is not None
    assert violation.code == "code-too-large"
