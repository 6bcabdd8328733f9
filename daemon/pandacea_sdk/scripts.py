"""What a Spender runs: a file, a string of source, or a function, made the text that is sent, hashed and approved."""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import symtable
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final

from pandacea_sdk.errors import UsageError, usage_error
from pandacea_sdk.prepare import Inputs, list_inputs, read_script
from pandacea_sdk.protocol.limits import MAX_CODE_BYTES

Code = Callable[..., object] | str | os.PathLike[str]
"""A function; a file; or source, which is a string with a line break."""
GIVEN: Final = ("params", "uploads")
"""Parameters of a function beside its inputs."""
_KNOWN: Final = frozenset(dir(builtins)) | {"pandacea_progress", "__name__"}
HEAD: Final = "from __future__ import annotations\n\n"
TAIL: Final = '''


def _save_returned(returned):
    """Keep what the function returned: arrays, a table, or JSON."""
    import json
    from importlib import import_module as find_library

    if returned is None:
        return
    if type(returned).__name__ == "DataFrame":
        returned.to_parquet("result.parquet")
        return
    if isinstance(returned, dict) and returned and all(hasattr(one, "dtype") and hasattr(one, "shape") for one in returned.values()):
        arrays = {str(name): one.detach().cpu().numpy() if hasattr(one, "detach") else one for name, one in returned.items()}
        numpy = find_library("numpy")
        try:
            safetensors = find_library("safetensors.numpy")
        except ImportError:
            numpy.savez("result.npz", **arrays)
        else:
            packed = {name: numpy.ascontiguousarray(one) for name, one in arrays.items()}
            safetensors.save_file(packed, "result.safetensors")
        return
    text = json.dumps(returned, default=lambda one: one.tolist(), allow_nan=False)
    with open("result.json", "w", encoding="utf-8") as file:
        file.write(text)


def _list_uploads():
    from pathlib import Path

    return {file.name: str(file) for file in sorted(Path("/workspace/in").glob("*"))}


'''


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and where its lines come from: `line` of the text is line `line + shift` of `file`."""

    text: str
    file: str | None = None
    shift: int = 0
    lines: range = range(0)
    """Lines of the text that stand in the file."""

    def locate(self, line: int) -> tuple[str, int] | None:
        """Return file and line of a line of the text; None: it is not the Spender's own."""
        return (self.file, line + self.shift) if self.file is not None and line in self.lines else None


def read_code(code: Code, inputs: Inputs, *, has_params: bool = False, has_uploads: bool = False) -> Script:
    """Make the script of a file, a string or a function.

    Raises:
        UsageError: it cannot be read, or is a function that could not run elsewhere; with name and line.
    """
    if callable(code):
        return _script_of_function(code, [one["variable_name"] for one in list_inputs(inputs)], has_params, has_uploads)
    if not isinstance(code, str | os.PathLike):
        raise usage_error(f"code is a {type(code).__name__}: hand in a plain function, a file, or a string of source.")
    if isinstance(code, str) and "\n" in code:
        script = Script(code)
    else:
        text = read_script(code)
        script = Script(text, os.fspath(code), 0, range(1, text.count("\n") + 2))
    _require_size(script.text, "The script")
    return script


def _script_of_function(function: Any, variables: list[str], has_params: bool, has_uploads: bool) -> Script:
    name, source, file, first = _read_function(function)
    try:
        node = ast.parse(source).body[0]
    except (SyntaxError, IndexError):
        raise _refused(name, file, first, "its source cannot be parsed; define it without indentation") from None
    if not isinstance(node, ast.FunctionDef):
        raise _refused(name, file, first, "it is not a plain function (async functions cannot be sent)")
    for each in ast.walk(node):
        if isinstance(each, ast.Yield | ast.YieldFrom):
            raise _refused(name, file, first + each.lineno - 1, "it yields; return its result")
    if node.decorator_list:
        raise _refused(name, file, first, "it is decorated; hand in the plain function")
    _require_parameters(node, variables, has_params, has_uploads, lambda line, why: _refused(name, file, first + line - 1, why))
    for outside, line in _names_from_outside(source):
        raise _refused(
            name,
            file,
            first + line - 1,
            f"it uses {outside}, which is defined outside of it; import or define {outside} inside {name}",
        )
    arguments = ", ".join(
        f"{one.arg}=_list_uploads()" if one.arg == "uploads" else f"{one.arg}={one.arg}" for one in _parameters(node)
    )
    text = f"{HEAD}{source.rstrip()}{TAIL}_save_returned({name}({arguments}))\n"
    _require_size(text, f"The function {name}")
    above = HEAD.count("\n")
    return Script(text, file, first - 1 - above, range(above + 1, above + 1 + source.rstrip().count("\n") + 1))


def _read_function(function: Any) -> tuple[str, str, str, int]:
    """Return name, source without indentation, file and first line of a function."""
    name = getattr(function, "__qualname__", type(function).__name__)
    if inspect.ismethod(function) or not isinstance(function, FunctionType):
        raise usage_error(f"{name} is a {type(function).__name__}: hand in a plain function, a file, or a string of source.")
    file, first = function.__code__.co_filename, function.__code__.co_firstlineno
    if function.__name__ == "<lambda>":
        raise _refused("the lambda", file, first, "a lambda has no source of its own; write it with def")
    if hasattr(function, "__wrapped__"):
        raise _refused(name, file, first, "it is decorated; hand in the plain function")
    if function.__closure__:
        raise _refused(name, file, first, f"it closes over {', '.join(function.__code__.co_freevars)} of the function around it")
    if "." in name:
        kind = "is defined inside another function" if "<locals>" in name else "is a method of a class"
        raise _refused(name.rpartition(".")[2], file, first, f"it {kind}; define it at the top of a module or a cell")
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError, SyntaxError):
        raise _refused(name, file, first, "its source cannot be found; hand in a file or a string of source") from None
    return name, textwrap.dedent("".join(lines)), file, first


def _parameters(node: ast.FunctionDef) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def _require_parameters(
    node: ast.FunctionDef,
    variables: list[str],
    has_params: bool,
    has_uploads: bool,
    refused: Callable[[int, str], UsageError],
) -> None:
    args = node.args
    wanted = f"its parameters are the inputs ({', '.join(variables) or 'none'}) and, where it uses them, params and uploads"
    if args.vararg or args.kwarg or args.posonlyargs or args.defaults or any(args.kw_defaults):
        raise refused(node.lineno, f"{wanted}; no *, / or default values")
    names = {one.arg: one.lineno for one in _parameters(node)}
    for name, line in names.items():
        if name not in {*variables, *GIVEN}:
            raise refused(line, f"its parameter {name} is not an input; {wanted}")
    for name in (*variables, *(["params"] if has_params else []), *(["uploads"] if has_uploads else [])):
        if name not in names:
            raise refused(node.lineno, f"it has no parameter {name}; {wanted}")


def _names_from_outside(source: str) -> Iterator[tuple[str, int]]:
    """Find names that a function takes from its module, with the first line of each."""
    text = HEAD.strip() + "\n" + source
    tree = ast.parse(text)
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    outside = {
        symbol.get_name()
        for table in _tables(symtable.symtable(text, "<function>", "exec").get_children())
        for symbol in table.get_symbols()
        if symbol.is_global() and symbol.is_referenced()
    }
    places: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in outside - _KNOWN - own:
            places[node.id] = min(node.lineno - 1, places.get(node.id, node.lineno))
    yield from sorted(places.items(), key=lambda found: found[1])


def _tables(tables: Iterable[symtable.SymbolTable]) -> Iterator[symtable.SymbolTable]:
    for table in tables:
        if str(table.get_type()).rpartition(".")[2].lower() in {"function", "class"}:
            yield table
            yield from _tables(table.get_children())


def _require_size(text: str, what: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_CODE_BYTES:
        raise usage_error(f"{what} has {size:,} bytes; at most {MAX_CODE_BYTES:,} are taken. Put data into uploads.")


def _refused(name: str, file: str, line: int, why: str) -> UsageError:
    error = usage_error(f"{name} cannot be sent ({file}, line {line}): {why}.")
    error.line = line
    return error
