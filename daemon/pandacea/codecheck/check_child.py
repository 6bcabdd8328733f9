"""Parse one script from standard input and print what was found as JSON; `check` runs this program in a process of its own.

It imports nothing of pandacea, limits itself before it reads a byte of the script, and runs none of it. A script that exhausts parser,
memory or stack ends this process and nothing else.
"""

import ast
import json
import resource
import sys

MAX_IMPORTS = 1000
MEMORY_BYTES = 512 * 1024 * 1024
CPU_SECONDS = 4
IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


def set_limits() -> None:
    """Limit this process: memory, processor time, no files written, no core dump."""
    for what, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (value, value) if hard == resource.RLIM_INFINITY or value <= hard else (hard, hard))


def find_imports(tree: ast.AST) -> list[list[object]]:
    """Return [module, line, optional] of each import statement, and of each call that imports a module named by a literal.

    Optional: it stands in a `try` whose handler takes the ImportError, so the script can do without.
    """
    found: list[list[object]] = []
    pending = [(tree, False)]
    while pending:
        node, optional = pending.pop()
        if isinstance(node, ast.Import):
            found += [[alias.name, node.lineno, optional] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(["" if node.level else node.module or "", node.lineno, optional])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in {"__import__", "import_module"} and isinstance(node.args[0].value, str):
                found.append([node.args[0].value, node.lineno, optional])
        tried = set(node.body) if isinstance(node, ast.Try) and takes_import_error(node) else set()
        pending += [(child, optional or child in tried) for child in ast.iter_child_nodes(node)]
    found.sort(key=lambda item: int(str(item[1])))
    return found[:MAX_IMPORTS]


def takes_import_error(node: ast.Try) -> bool:
    """Whether a handler of this statement takes an ImportError."""
    kinds = [
        kind for handler in node.handlers for kind in (handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type])
    ]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in IMPORT_ERRORS) for kind in kinds)


def inspect_script(code: str) -> dict[str, object]:
    """Return what the script imports, or why Python cannot compile it."""
    try:
        tree = ast.parse(code, "script")
        found = find_imports(tree)
        # Compile as well, for what only the compiler finds: `return` outside a function, a name both global and parameter.
        compile(tree, "script", "exec", dont_inherit=True)
    except SyntaxError as error:
        return {"syntax": ascii(error.msg)[1:-1], "line": error.lineno}
    except ValueError as error:
        return {"syntax": ascii(str(error))[1:-1], "line": None}
    except (MemoryError, RecursionError):
        return {"complex": True}
    return {"imports": found}


if __name__ == "__main__":
    set_limits()
    try:
        answer = json.dumps(inspect_script(sys.stdin.buffer.read().decode("utf-8")))
    except MemoryError:
        answer = '{"complex": true}'
    sys.stdout.write(answer)
