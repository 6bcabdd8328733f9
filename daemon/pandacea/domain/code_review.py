"""Find what a person should look at before approving a script. It helps reading; it is not a boundary: the sandbox is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RUNS_TEXT_NAMES: Final = frozenset({"exec", "eval", "compile", "__import__", "import_module", "run_path", "run_module"})
UNPICKLING_NAMES: Final = frozenset({"load", "loads", "Unpickler", "read_pickle", "joblib"})
REFLECTION_NAMES: Final = frozenset(
    {"getattr", "setattr", "delattr", "globals", "locals", "vars", "attrgetter", "methodcaller", "__getattribute__"}
)
PICKLE_MODULES: Final = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})
ESCAPE_MODULES: Final = frozenset({"ctypes", "cffi", "subprocess", "socket", "importlib", "builtins", "gc", "inspect"})
UPLOADS_PATH: Final = "/workspace/in"
PARAMS_NAME: Final = "params"
"""The name of the variable that holds a script's parameters."""


@dataclass(frozen=True, slots=True, order=True)
class ReviewWarning:
    """One thing to look at: its line (from 1), and the reason."""

    line: int
    reason: str


def review_code(code: str) -> list[ReviewWarning]:
    """Find what defeats an approval of a script, or hides something from its reader.

    `params` and uploads change from run to run: through what an approved script does with them another program can come in.
    """
    found = list(_unseen(code))
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return sorted([*found, ReviewWarning(1, "it cannot be parsed here; read it to the end or refuse it")])
    tainted = _tainted_nodes(tree)
    for node in ast.walk(tree):
        found.extend(_of_node(node, tainted))
    return sorted(set(found))


def escape_hidden(code: str) -> str:
    """Return the script with every character that is not printable ASCII as an escape: what is read is what runs.

    That shows bidirectional controls, zero-width characters and letters that look like others, at the price of foreign comments.
    """
    return "".join(
        character if character == "\n" or " " <= character <= "~" else character.encode("unicode_escape").decode("ascii")
        for character in code.replace("\r\n", "\n").expandtabs(8)
    )


def _unseen(code: str) -> Iterator[ReviewWarning]:
    for number, line in enumerate(code.split("\n"), 1):
        strange = [character for character in line if not (" " <= character <= "~" or character in "\t\r")]
        if strange:
            yield ReviewWarning(number, f"{len(strange)} character(s) beyond ASCII, shown as escapes: {''.join(strange[:8])!a}")
        if len(line) > 400:
            yield ReviewWarning(number, f"a line of {len(line)} characters: read it to its end")


def _tainted_nodes(tree: ast.AST) -> set[ast.AST]:
    """Find every node whose text contains something that comes from params or an upload, directly or through other names.

    One pass from the sources along two kinds of edges: from a node to the one around it, and from an assigned value to each use of
    the names that take it. Each node is reached once, so a script of N nodes takes O(N), whatever order its lines stand in.
    """
    around: dict[ast.AST, ast.AST] = {}
    uses: dict[str, list[ast.AST]] = {}
    reached: list[ast.AST] = []
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            around[child] = node
        if isinstance(node, ast.Name):
            uses.setdefault(node.id, []).append(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and UPLOADS_PATH in node.value:
            reached.append(node)
    reached += uses.pop(PARAMS_NAME, [])
    tainted: set[ast.AST] = set()
    while reached:
        node = reached.pop()
        if node in tainted:
            continue
        tainted.add(node)
        outer = around.get(node)
        if outer is None:
            continue
        reached.append(outer)
        if _value_of(outer) is node:
            for name in _names(outer):
                reached += uses.pop(name, [])
    return tainted


def _value_of(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        return node.value
    if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        return node.iter
    if isinstance(node, ast.withitem):
        return node.context_expr
    return None


def _names(node: ast.AST) -> Iterator[str]:
    targets: list[ast.AST] = []
    if isinstance(node, ast.Assign):
        targets = list(node.targets)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr | ast.For | ast.AsyncFor | ast.comprehension):
        targets = [node.target]
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        targets = [node.optional_vars]
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                yield part.id


def _of_node(node: ast.AST, tainted: set[ast.AST]) -> Iterator[ReviewWarning]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            root = module.split(".")[0]
            if root in PICKLE_MODULES:
                yield ReviewWarning(node.lineno, f"imports {root}: unpickling runs whatever the bytes say")
            elif root in ESCAPE_MODULES:
                yield ReviewWarning(node.lineno, f"imports {root}")
    elif isinstance(node, ast.Call):
        yield from _of_call(node, tainted)
    elif isinstance(node, ast.Attribute) and node.attr.startswith("__") and node.attr.endswith("__"):
        yield ReviewWarning(node.lineno, f"reaches for {node.attr}")
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and UPLOADS_PATH in node.value:
        yield ReviewWarning(node.lineno, "reads an upload: its bytes are another's and change from run to run")


def _of_call(node: ast.Call, tainted: set[ast.AST]) -> Iterator[ReviewWarning]:
    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
    given = any(part in tainted for part in [*node.args, *(word.value for word in node.keywords)])
    if isinstance(node.func, ast.Attribute):
        given = given or node.func.value in tainted
    what = " on what comes from params or an upload: this can run another program than the one you read" if given else ""
    if name in RUNS_TEXT_NAMES:
        yield ReviewWarning(node.lineno, f"calls {name}{what}")
    elif name in UNPICKLING_NAMES and (given or name != "load"):
        safe = any(
            word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True
            for word in node.keywords
        )
        if not safe:
            yield ReviewWarning(node.lineno, f"calls {name}, which may unpickle{what}")
    elif name in REFLECTION_NAMES:
        yield ReviewWarning(node.lineno, f"calls {name}{what}")
