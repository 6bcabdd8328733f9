"""`pandacea products add` and `remove`: inspect a file, ask, convert, show what becomes public, and only then write products.yaml."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from pandacea.api.product_page import render_product_page
from pandacea.app.commands.prompts import NotAnswered, Prompt, Write, prompt_terminal, prompt_until_valid, prompt_yes_no
from pandacea.app.commands.tables import open_tables
from pandacea.app.control.client import call_running_node
from pandacea.catalogue.declared_assets import parse_description
from pandacea.catalogue.document import build_document
from pandacea.catalogue.mock import mock_csv
from pandacea.catalogue.product_checks import check_shape
from pandacea.catalogue.products_file import DeclaredProduct, parse_price, parse_product
from pandacea.catalogue.products_writer import add_entry, check_id_is_free, remove_entry
from pandacea.catalogue.sources import open_source
from pandacea.catalogue.table_store import StoredTable
from pandacea.config import Config
from pandacea.domain.ids import ASSET_ID, AssetId
from pandacea.domain.printable import printable
from pandacea.domain.product import Asset, LiveOutput, Policy, Rehearsal, Release
from pandacea.domain.table import TableColumn, TableShape
from pandacea.errors import BadConfig, Refused
from pandacea_sdk.protocol.json_types import JsonObject

UNPUBLISHED: Final = "made when the product is published"
_RANGED: Final = re.compile(r"u?int|float|decimal|date|timestamp")


@dataclass(frozen=True, slots=True)
class AddProductRequest:
    """The options of `products add`. What they do not give is asked for, or with `yes` left at the strictest value."""

    file: Path
    entry: JsonObject
    """Keys of a product in products.yaml that were given: id, name, description, price, keywords, rules."""
    asset: JsonObject
    """Keys of its asset that were given: drop, keep, separator, table, format, mock, columns."""
    label: str | None = None
    yes: bool = False
    keep_flagged: bool = False
    """Keep all columns that may identify people and are not dropped."""
    options: tuple[str, ...] = ()
    """Options of the command line itself, for `equivalent_command`: which configuration."""
    write: Write = print
    prompt: Prompt = prompt_terminal


async def add_product(config: Config, request: AddProductRequest) -> bool:
    """Offer one file as a product. False: the Earner answered no, and nothing was written.

    Raises:
        BadConfig, UnreadableSource: the file or an option cannot be used; nothing was written.
    """
    data_dir = config.privacy.data_dir
    path = _resolve_in_data_dir(request.file, data_dir)
    entry = {"id": _id_from_name(path)} | request.entry
    asset_id = _id_from_name(path)
    asset_entry = {"file": str(path.relative_to(data_dir))} | request.asset
    check_id_is_free(data_dir, str(entry["id"]))
    async with AsyncExitStack() as stack:
        tables = await open_tables(config, stack, purpose="tools")
        with open_source(path, data_dir) as source:
            draft = parse_product(entry | {"assets": {asset_id: asset_entry}}, data_dir)
            shape = await tables.inspect_source(source, draft.assets[AssetId(asset_id)].recipe)
            try:
                _complete_entry(request, entry, asset_entry, shape)
            except (KeyboardInterrupt, NotAnswered):
                request.write(f"\nWhat was answered so far:\n\n    {equivalent_command(request, entry, asset_entry)}\n")
                raise
            stated = parse_product(entry | {"assets": {asset_id: asset_entry}}, data_dir)
            recipe = stated.assets[AssetId(asset_id)].recipe
            recipe_digest = source.recipe_digest(recipe)
            made = await tables.convert_source(source, recipe, recipe_digest, _progress(request.write))
            check_shape(AssetId(asset_id), stated.assets[AssetId(asset_id)], made.shape)
    _show_public(request, config, stated, AssetId(asset_id), made)
    if not request.yes:
        request.write(f"The same without questions:\n\n    {equivalent_command(request, entry, asset_entry)}\n")
        if not prompt_yes_no(request.prompt, request.write, "Publish this?", default=False):
            request.write("Nothing was written.")
            return False
    add_entry(data_dir, entry | {"assets": {asset_id: asset_entry}})
    request.write(await _reload_node(config))
    return True


def _resolve_in_data_dir(file: Path, data_dir: Path) -> Path:
    inside = data_dir / file
    if not file.is_absolute() and inside.exists():
        return inside
    path = Path.cwd() / file if not file.is_absolute() else file
    try:
        return data_dir / path.parent.resolve().relative_to(data_dir.resolve()) / path.name
    except ValueError:
        raise BadConfig(f"{file} is not in the data folder {data_dir}; move it there first: nothing outside it is read.") from None


def _id_from_name(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-._")[:64]
    if not ASSET_ID.fullmatch(name):
        raise BadConfig(f"{path.name} gives no usable id; name the product with --id, and the file in letters and digits.")
    return name


def _progress(say: Callable[[str], None]) -> Callable[[float, float], None]:
    last = -10

    def progress(done: float, total: float) -> None:
        nonlocal last
        percent = int(100 * done / total) if total else 0
        if percent >= last + 10:
            last = percent
            say(f"Converting: {percent} %")

    return progress


def _complete_entry(request: AddProductRequest, entry: JsonObject, asset_entry: JsonObject, shape: TableShape) -> None:
    """Complete both entries: columns, what they hold, the label, the rules. Every answer is checked when it is given."""
    dropped = _choose_columns(request, asset_entry, shape.columns)
    keep = asset_entry.get("keep")
    kept = [one for one in shape.columns if one.name not in dropped and (keep is None or one.name in keep)]
    columns: JsonObject = asset_entry.setdefault("columns", {})
    names = {column.name for column in kept}
    for name in columns:
        if name not in names:
            raise BadConfig(f"--column describes {name!r}, which is not a kept column; {_list_kept(kept)}")
    label = request.label
    if label is not None:
        _check_label(kept, label)
    elif not request.yes:
        question = "Which column is the outcome (label)? [none] "
        label = prompt_until_valid(request.prompt, request.write, question, lambda text: _check_label(kept, text) if text else None)
    if label:
        columns.setdefault(label, {})["label"] = True
    if not request.yes:
        for column in kept:
            _ask_about_column(request, column, columns)
    _ask_about_product(request, entry)
    if not columns:
        del asset_entry["columns"]


def _check_label(kept: Sequence[TableColumn], name: str) -> str:
    if name not in {column.name for column in kept}:
        raise BadConfig(f"the label {name!r} is not a kept column; {_list_kept(kept)}")
    return name


def _list_kept(kept: Sequence[TableColumn]) -> str:
    return f"kept are: {', '.join(printable(column.name) for column in kept[:30])}."


def _choose_columns(request: AddProductRequest, asset_entry: JsonObject, columns: Sequence[TableColumn]) -> set[str]:
    """Show every column that may identify people and ask about it; return the dropped ones. Those that stay go into the entry."""
    dropped = set(asset_entry.get("drop") or [])
    flagged = [column for column in columns if column.flags]
    stays = [column.name for column in flagged if request.keep_flagged or column.name in (asset_entry.get("keep") or ())]
    for column in flagged:
        for flag in column.flags:
            request.write(f"  ! {printable(column.name)} ({column.type}): {printable(flag)}")
        if column.name in stays or request.yes:
            continue
        if prompt_yes_no(request.prompt, request.write, f"Drop {printable(column.name)}?", default=True):
            dropped.add(column.name)
            request.write(f"    {printable(column.name)} is dropped: it is not converted and no script sees it.")
        else:
            stays.append(column.name)
    open_columns = [printable(one.name) for one in flagged if one.name not in dropped and one.name not in stays]
    if open_columns:
        raise BadConfig(
            f"these columns may identify people: {', '.join(open_columns)}. Drop them (--drop), or say that they stay (--keep-flagged); "
            "--yes does not decide that."
        )
    if dropped:
        asset_entry["drop"] = sorted(dropped)
    if stays:
        asset_entry["keep_flagged"] = stays
    return dropped


def _ask_about_column(request: AddProductRequest, column: TableColumn, columns: JsonObject) -> None:
    """Ask what a column holds, where no option says it."""
    name, known = printable(column.name), columns.get(column.name, {})

    def checked(more: JsonObject) -> JsonObject:
        parse_description(f"column {name}", known | more)
        return more

    def bounds(text: str) -> JsonObject:
        low, dots, high = text.partition("..")
        if text and not (low.strip() and dots and high.strip()):
            raise BadConfig(f"{text!r} is not a range; write for example 0..100, or Enter for none.")
        return checked({"minimum": _scalar(low), "maximum": _scalar(high)} if text else {})

    def categories(text: str) -> JsonObject:
        return checked({"categories": [word.strip() for word in text.split(",") if word.strip()]} if text else {})

    more: JsonObject = {}
    if _RANGED.match(column.type) and not {"minimum", "maximum"} & set(known):
        question = f"{name} ({column.type}): plausible range, e.g. 0..100, rounder than your data's own extremes? [none] "
        more = prompt_until_valid(request.prompt, request.write, question, bounds)
    elif column.type.startswith(("string", "category")) and "categories" not in known:
        question = f"{name} ({column.type}): which values may be named, separated by commas? [none] "
        more = prompt_until_valid(request.prompt, request.write, question, categories)
    if more:
        columns[column.name] = known | more


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # `parse_description` says what is wrong with it


def _ask_about_product(request: AddProductRequest, entry: JsonObject) -> None:
    """Ask for name, description, price and rules, where no option gives them. A price is never assumed."""
    if "price" not in entry and request.yes:
        raise BadConfig("no price is stated, and --yes does not decide that: --price '0.02 ether', or --price 0 for nothing.")
    if request.yes:
        return
    for key, question, default in (
        ("name", "Name of the product", entry["id"]),
        ("description", "What is it, from when, in which units", "none"),
    ):
        if key not in entry and (text := request.prompt(f"{question}? [{default}] ").strip()):
            entry[key] = text
    if "price" not in entry:
        entry["price"] = prompt_until_valid(
            request.prompt, request.write, "Price of a lease? [for example 0.02 ether; 0: nothing] ", _price
        )
    rules = entry.setdefault("rules", {})
    for key, kind in (("policy", Policy), ("release", Release), ("live_output", LiveOutput), ("rehearsal", Rehearsal)):
        if key not in rules:
            rules[key] = prompt_until_valid(
                request.prompt, request.write, f"{key} ({' | '.join(kind)})? [{next(iter(kind))}] ", _choice_reader(kind)
            )
    if "show_messages" not in rules:
        question = "Show a Spender its script's error messages, which may quote rows?"
        rules["show_messages"] = prompt_yes_no(request.prompt, request.write, question, default=False)


def _price(text: str) -> str:
    if not text:
        raise BadConfig("a price must be given; 0 offers the product for nothing.")
    parse_price(text)
    return text


def _choice_reader(kind: type[StrEnum]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text and text not in list(kind):
            raise BadConfig(f"{text!r} is none of {', '.join(kind)}.")
        return text or next(iter(kind)).value

    return read


def equivalent_command(request: AddProductRequest, entry: JsonObject, asset_entry: JsonObject) -> str:
    """Return the command line that gives what was answered so far, so that no answer is given twice."""
    words = ["pandacea", "products", "add", str(request.file)]
    for key, value in entry.items():
        if key == "rules":
            words += [word for rule, chosen in value.items() for word in _rule_options(rule, chosen)]
        else:
            words += [f"--{key}", ",".join(value) if isinstance(value, list) else str(value)]
    labels = [name for name, about in asset_entry.get("columns", {}).items() if about.get("label")]
    for name, about in asset_entry.get("columns", {}).items():
        if rest := {key: value for key, value in about.items() if key != "label"}:
            words += ["--column", yaml.safe_dump({name: rest}, default_flow_style=True, allow_unicode=True, width=10_000).strip()]
    words += [word for name in labels for word in ("--label", name)]
    for key in ("drop", "keep"):
        words += [f"--{key}", ",".join(asset_entry[key])] if asset_entry.get(key) else []
    for key in ("separator", "table", "format"):
        words += [f"--{key}", asset_entry[key]] if asset_entry.get(key) else []
    if "mock" in asset_entry:
        words += ["--mock-rows", str(asset_entry["mock"]["rows"])]
    if asset_entry.get("keep_flagged"):
        words.append("--keep-flagged")
    return shlex.join([*words, *request.options, "--yes"])


def _rule_options(rule: str, chosen: Any) -> list[str]:
    if rule == "show_messages":
        return ["--show-messages"] if chosen else []
    return [f"--{rule.replace('_', '-')}", str(chosen)]


def _show_public(request: AddProductRequest, config: Config, stated: DeclaredProduct, asset_id: AssetId, made: StoredTable) -> None:
    """Show everything that becomes public: as text, and as the page in a file."""
    asset = Asset(asset_id, UNPUBLISHED, made.path, "arrow", made.shape)
    public = build_document(stated, {asset_id: asset})
    declared = stated.assets[asset_id]
    mock = mock_csv(public["assets"][0]["schema"], min(declared.mock_rows, 5), declared.mock_seed).decode()
    request.write("\nThis becomes public, and nothing else:\n")
    request.write(printable(yaml.safe_dump(public, sort_keys=False, allow_unicode=True, width=120), limit=200_000, newlines=True))
    request.write(f"Mock rows ({declared.mock_rows}, made from the above alone), beginning:\n")
    request.write(printable(mock, limit=20_000, newlines=True))
    if made.shape.rows == 0:
        request.write("  ! the file has column names and no rows.")
    for warning in warn_about_rules(public):
        request.write(f"  ! {warning}")
    page = config.store.state_dir / "preview.html"
    page.write_bytes(
        render_product_page(
            public,
            version=UNPUBLISHED,
            signature=UNPUBLISHED,
            product_hash=UNPUBLISHED,
            earner=config.earner.address,
            limits=config.privacy.limits.to_limits().as_json(),
            environment=None,
        )
    )
    request.write(f"The same as the page that people will see: {page}\n")


def warn_about_rules(public: JsonObject) -> list[str]:
    """Return what the Earner should know about the chosen rules."""
    found = []
    if public["rules"]["policy"] == Policy.ANY_CODE:
        found.append("any-code: whoever holds a lease may copy out what fits the output limits, row by row.")
        if public["rules"]["release"] == Release.AUTO:
            found.append("auto: and nobody looks at it before it leaves.")
    return found


async def _reload_node(config: Config) -> str:
    answer = await call_running_node(config, "products reload", {})
    if answer is None:
        return "Written. No node is running; the next start takes it up."
    troubles = answer["troubles"]
    if troubles:
        raise Refused("; ".join(f"{one['product_id']}: {one['detail']}" for one in troubles))
    return f"On offer: {', '.join(answer['products'])}."


async def remove_product(config: Config, product_id: str) -> str:
    """Withdraw a product. Its versions and tables stay: running leases and replays need them.

    Raises:
        BadConfig: products.yaml does not list it, or cannot be used.
        Refused: the running node refuses what products.yaml says now.
    """
    remove_entry(config.privacy.data_dir, product_id)
    return await _reload_node(config)
