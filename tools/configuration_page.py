"""Write the reference tables of docs/configuration.md from the fields of `pandacea.config.sections` and their docstrings.

Run `python tools/configuration_page.py` after a change of a field; a test compares the page with what this yields. What stands above the
marker is written by hand.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeGuard, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from pandacea.config import sections

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
MARKER: Final = "<!-- From here on written by tools/configuration_page.py from the docstrings of pandacea/config/sections.py. -->\n"

UNITS: Final = {"seconds": "seconds", "mb": "MiB", "kb": "KiB", "eth": "ether"}
"""The unit that a word of a key states."""
TYPES: Final = {bool: "`true` or `false`", int: "integer", float: "number", str: "text", SecretStr: "text", Path: "path"}
CHECKED: Final = {
    sections._check_address: "address",
    sections._check_network: "IP address or network",
    sections._check_rpc_url: "URL",
    sections._check_code_hash: "0x and 64 hex digits",
    sections._as_endpoint: "URL or `{url:, operator:}`",
}
"""What a validator of ours lets through."""


def render_page(page: str) -> str:
    """The page with its tables written anew; `page` is its present text.

    Raises:
        ValueError: the page has no marker.
    """
    prose, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"The page has no line {MARKER.strip()!r}: put it where the tables begin.")
    return prose + marker + "".join(_render_sections(sections.Config))


def _render_sections(section: type[sections.Section], above: str = "") -> Iterator[str]:
    for key, field in section.model_fields.items():
        below = field.annotation
        if not _is_section(below):
            continue
        yield f"\n## {above}{key}\n\n{_one_line(below.__doc__ or '')}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
        yield from _render_rows(below)
        yield from _render_sections(below, f"{above}{key}.")


def _is_section(kind: Any) -> TypeGuard[type[sections.Section]]:
    return isinstance(kind, type) and issubclass(kind, sections.Section)


def _render_rows(section: type[sections.Section]) -> Iterator[str]:
    """A row for each field with a docstring; one without is not meant for the file."""
    kinds, docstrings = get_type_hints(section, include_extras=True), read_docstrings(section)
    for key, field in section.model_fields.items():
        if key in docstrings and not _is_section(field.annotation):
            cells = (f"`{key}`", describe_value(key, kinds[key], field), describe_default(field), docstrings[key])
            yield f"| {' | '.join(cells)} |\n"


def read_docstrings(section: type[sections.Section]) -> dict[str, str]:
    """The docstring below each field of a section, on one line."""
    definition = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(field.target)] = _one_line(str(below.value.value))
    return found


def describe_value(key: str, kind: Any, field: FieldInfo) -> str:
    """What may be written: the type, or the unit that the key's name states, and the bounds."""
    return " or ".join(dict.fromkeys(_describe_type(key, kind, field.metadata)))


def _describe_type(key: str, kind: Any, metadata: Sequence[Any]) -> Iterator[str]:
    origin, arguments = get_origin(kind), get_args(kind)
    checks = [check.func for check in metadata if isinstance(check, AfterValidator | BeforeValidator)]
    if origin is Annotated:
        inner = [part for one in arguments[1:] for part in (one.metadata if isinstance(one, FieldInfo) else [one])]
        yield from _describe_type(key, arguments[0], [*inner, *metadata])
    elif named := [CHECKED[check] for check in checks if check in CHECKED]:
        yield named[0]
    elif origin is Literal:
        yield from (f"`{choice}`" for choice in arguments)
    elif origin is tuple:
        each = " or ".join(_describe_type(key, arguments[0], []))
        yield (
            f"{each}, or a list of them" if sections._as_list in checks else f"list of {each}{'es' if each.endswith('s') else 's'}"
        )
    elif arguments:
        for choice in arguments:
            if choice is not type(None):
                yield from _describe_type(key, choice, metadata)
    elif _is_section(kind):
        yield f"`{{{', '.join(f'{name}:' for name in kind.model_fields)}}}`"
    elif kind in {int, float}:
        unit = next((UNITS[word] for word in key.split("_") if word in UNITS), TYPES[kind])
        yield unit + _describe_bounds(metadata)
    else:
        yield TYPES[kind]


def _describe_bounds(metadata: Sequence[Any]) -> str:
    least = [_number(bound.ge) for bound in metadata if isinstance(bound, Ge)]
    above = [f"above {_number(bound.gt)}" for bound in metadata if isinstance(bound, Gt)]
    most = [_number(bound.le) for bound in metadata if isinstance(bound, Le)]
    if least:
        return f", {least[0]} to {most[0]}" if most else f", {least[0]} or more"
    return "".join(f", {bound}" for bound in [*above, *(f"at most {bound}" for bound in most)])


def _number(value: Any) -> str:
    return f"{value:,.15g}".replace(",", "")


def describe_default(field: FieldInfo) -> str:
    """The default as it would be written into the file; `none` where the key is simply left out."""
    default = field.default
    if field.is_required():
        return "required"
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return _number(default)
    return f"`{', '.join(default) if isinstance(default, tuple) else default}`"


def _one_line(docstring: str) -> str:
    return " ".join(docstring.split())


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
