"""`pandacea products`: what the Earner offers."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pandacea.cli.command import add_command, load_config_quietly
from pandacea.cli.control import run_control_verb
from pandacea.errors import BadConfig

if TYPE_CHECKING:
    from pandacea.app import AddProductRequest

RULES: Final = ("policy", "release", "live_output", "rehearsal", "show_messages")


def product_commands(commands: Any) -> None:
    """What the Earner offers."""
    actions = commands.add_parser("products", help="what you offer").add_subparsers(required=True, metavar="ACTION")
    for verb, summary in (
        ("products list", "products on offer"),
        ("products show", "all that is public of one product"),
        ("products reload", "have the running node take up products.yaml and changed files"),
    ):
        made = add_command(actions, verb.split()[1], run_control_verb, summary)
        made.set_defaults(verb=verb)
        made.add_argument("--json", action="store_true", help="print JSON")
        if verb == "products show":
            made.add_argument("id", help="as listed")
    remove = add_command(actions, "remove", _products_remove, "take a product off the offer")
    remove.add_argument("id", help="as listed")
    add = add_command(actions, "add", _products_add, "offer a file of the data folder; shows what becomes public before it does")
    add.add_argument("file", type=Path, help="CSV, Parquet, Arrow (Feather) or SQLite, in the data folder")
    for name, summary in (
        ("id", "default: the file's name"),
        ("name", "for people"),
        ("description", "what it is, from when, in which units"),
        ("price", "of a lease, for example '0.02 ether'"),
        ("keywords", "separated by commas"),
        ("policy", "approved-code | any-code"),
        ("release", "hold | auto"),
        ("live-output", "none | progress | full"),
        ("rehearsal", "lease | off"),
    ):
        add.add_argument(f"--{name}", help=summary)
    add.add_argument("--drop", help="columns that are not converted, separated by commas")
    add.add_argument("--keep", help="the only columns that are, separated by commas")
    add.add_argument("--label", help="the column scripts are to predict")
    add.add_argument("--show-messages", action="store_true", default=None, help="Spenders see error messages, which may quote rows")
    add.add_argument("--format", help="csv | parquet | arrow | sqlite; default: by the file's ending")
    add.add_argument("--separator", help="of CSV, default: ','; \\t for a tab")
    add.add_argument("--table", help="of a SQLite file")
    add.add_argument("--mock-rows", type=int, help="default: 100")
    column = "what a column holds, as YAML: 'age: {unit: years, minimum: 0, maximum: 110}'"
    add.add_argument("--column", action="append", default=[], help=column)
    add.add_argument("--keep-flagged", action="store_true", help="columns that may identify people stay, all that are not dropped")
    add.add_argument(
        "--yes",
        action="store_true",
        help="ask nothing: rules that are not stated are the strictest about the data; a price must be stated",
    )


def _products_add(parsed: argparse.Namespace) -> int:
    from pandacea import app

    return 0 if asyncio.run(app.add_product(load_config_quietly(parsed), read_add_request(parsed))) else 1


def read_add_request(parsed: argparse.Namespace) -> AddProductRequest:
    """What the options say. Raises BadConfig."""
    from pandacea import app

    given = {key: getattr(parsed, key) for key in ("id", "name", "description", "price") if getattr(parsed, key)}
    if parsed.keywords:
        given["keywords"] = _listed(parsed.keywords)
    rules = {key: getattr(parsed, key) for key in RULES if getattr(parsed, key)}
    if rules:
        given["rules"] = rules
    asset: dict[str, Any] = {key: getattr(parsed, key) for key in ("separator", "table", "format") if getattr(parsed, key)}
    if asset.get("separator") == "\\t":
        asset["separator"] = "\t"
    asset |= {key: _listed(getattr(parsed, key)) for key in ("drop", "keep") if getattr(parsed, key)}
    if parsed.mock_rows is not None:
        asset["mock"] = {"rows": parsed.mock_rows}
    if parsed.column:
        asset["columns"] = _columns(parsed.column)
    options = () if parsed.config == Path("config.yaml") else ("--config", str(parsed.config))
    return app.AddProductRequest(
        parsed.file, given, asset, parsed.label, yes=parsed.yes, keep_flagged=parsed.keep_flagged, options=options
    )


def _products_remove(parsed: argparse.Namespace) -> int:
    from pandacea import app
    from pandacea.config import load_config

    print(asyncio.run(app.remove_product(load_config(parsed.config), parsed.id)))
    return 0


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _columns(texts: list[str]) -> dict[str, Any]:
    import yaml

    columns: dict[str, Any] = {}
    for text in texts:
        try:
            said = yaml.safe_load(text)
        except yaml.YAMLError:
            said = None
        if not isinstance(said, dict) or not all(isinstance(about, dict) for about in said.values()):
            raise BadConfig(
                f"--column {text!r} is not understood; write for example 'age: {{unit: years, minimum: 0, maximum: 110}}'."
            )
        columns |= said
    return columns
