"""`pandacea products`: list, show, add, remove and reload the products on offer."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pandacea.cli.command import Commands, add_command, load_config_quietly
from pandacea.cli.control import add_control_command
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.json_types import JsonObject

if TYPE_CHECKING:
    from pandacea.app.commands.add_product import AddProductRequest

RULES: Final = ("policy", "release", "live_output", "rehearsal", "show_messages")


def product_commands(commands: Commands) -> None:
    """Add `products` and its actions."""
    actions = commands.add_parser("products", help="what you offer").add_subparsers(required=True, metavar="ACTION")
    for verb, summary in (
        ("products list", "products on offer"),
        ("products show", "all that is public of one product"),
        ("products reload", "have the running node take up products.yaml and changed files"),
    ):
        added = add_control_command(actions, verb, summary)
        if verb == "products show":
            added.add_argument("id", help="as listed")
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
    from pandacea.app.commands.add_product import add_product

    return 0 if asyncio.run(add_product(load_config_quietly(parsed), read_add_request(parsed))) else 1


def read_add_request(parsed: argparse.Namespace) -> AddProductRequest:
    """Read the options of `products add`.

    Raises:
        BadConfig: an option cannot be understood.
    """
    from pandacea.app.commands.add_product import AddProductRequest

    given = {key: getattr(parsed, key) for key in ("id", "name", "description", "price") if getattr(parsed, key)}
    if parsed.keywords:
        given["keywords"] = _split_list(parsed.keywords)
    rules = {key: getattr(parsed, key) for key in RULES if getattr(parsed, key)}
    if rules:
        given["rules"] = rules
    asset: JsonObject = {key: getattr(parsed, key) for key in ("separator", "table", "format") if getattr(parsed, key)}
    if asset.get("separator") == "\\t":
        asset["separator"] = "\t"
    asset |= {key: _split_list(getattr(parsed, key)) for key in ("drop", "keep") if getattr(parsed, key)}
    if parsed.mock_rows is not None:
        asset["mock"] = {"rows": parsed.mock_rows}
    if parsed.column:
        asset["columns"] = _read_columns(parsed.column)
    options = () if parsed.config == Path("config.yaml") else ("--config", str(parsed.config))
    return AddProductRequest(
        parsed.file, given, asset, parsed.label, yes=parsed.yes, keep_flagged=parsed.keep_flagged, options=options
    )


def _products_remove(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.add_product import remove_product
    from pandacea.config import load_config

    print(asyncio.run(remove_product(load_config(parsed.config), parsed.id)))
    return 0


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _read_columns(texts: list[str]) -> JsonObject:
    import yaml

    columns: JsonObject = {}
    for text in texts:
        try:
            described = yaml.safe_load(text)
        except yaml.YAMLError:
            described = None
        if not isinstance(described, dict) or not all(isinstance(about, dict) for about in described.values()):
            raise BadConfig(
                f"--column {text!r} is not understood; write for example 'age: {{unit: years, minimum: 0, maximum: 110}}'."
            )
        columns |= described
    return columns
