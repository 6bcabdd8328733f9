"""`pandacea products add`: look at a file, ask, convert, show exactly what becomes public, and only then write products.yaml."""

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
from pandacea.app.commands.prompts import NotAnswered, prompt_terminal, prompt_until_valid, prompt_yes_no
from pandacea.app.control import server
from pandacea.app.reading import open_tables
from pandacea.catalogue.declared_assets import parse_description
from pandacea.catalogue.document import build_document
from pandacea.catalogue.mock import mock_csv
from pandacea.catalogue.product_checks import check_shape
from pandacea.catalogue.products_file import DeclaredProduct, parse_price, parse_product
from pandacea.catalogue.products_writer import add_entry, check_id_is_free, remove_entry
from pandacea.catalogue.sources import hash_file, open_source
from pandacea.catalogue.table_store import StoredTable
from pandacea.config import Config
from pandacea.domain.ids import ASSET_ID, AssetId
from pandacea.domain.printable import printable
from pandacea.domain.product import Asset, LiveOutput, Policy, Rehearsal, Release
from pandacea.domain.table import TableColumn, TableShape
from pandacea.errors import BadConfig, Refused

UNPUBLISHED: Final = "made when the product is published"
_RANGED: Final = re.compile(r"u?int|float|decimal|date|timestamp")


@dataclass(frozen=True, slots=True)
class AddProductRequest:
    """What was said on the command line; the rest is asked for, or with `yes` left at the strictest value."""

    file: Path
    entry: dict[str, Any]
    """Keys of a product in products.yaml that were given: id, name, description, price, keywords, rules."""
    asset: dict[str, Any]
    """Keys of its asset that were given: drop, keep, separator, table, format, mock, columns."""
    label: str | None = None
    yes: bool = False
    keep_flagged: bool = False
    """Columns that look as if they identified people stay, all that are not dropped."""
    options: tuple[str, ...] = ()
    """Of the command line itself, for the line that says the same: which configuration."""
    say: Callable[[str], None] = print
    ask: Callable[[str], str] = prompt_terminal


async def add_product(config: Config, wanted: AddProductRequest) -> bool:
    """Register one file as a product. False: the Earner said no, and nothing was written.

    Raises:
        BadConfig, UnreadableSource: the file or a word of it cannot be used; nothing was written.
    """
    data_dir = config.privacy.data_dir
    path = _beneath(wanted.file, data_dir)
    entry = {"id": _id_of(path)} | wanted.entry
    asset_id = _id_of(path)
    said = {"file": str(path.relative_to(data_dir))} | wanted.asset
    check_id_is_free(data_dir, str(entry["id"]))
    async with AsyncExitStack() as stack:
        tables = await open_tables(config, stack, purpose="tools")
        with open_source(path, data_dir) as source:
            draft = parse_product(entry | {"assets": {asset_id: said}}, data_dir)
            seen = await tables.inspect_source(source, draft.assets[AssetId(asset_id)].recipe)
            try:
                _ask(wanted, entry, said, seen)
            except (KeyboardInterrupt, NotAnswered):
                wanted.say(f"\nWhat was answered so far:\n\n    {equivalent_command(wanted, entry, said)}\n")
                raise
            stated = parse_product(entry | {"assets": {asset_id: said}}, data_dir)
            recipe = stated.assets[AssetId(asset_id)].recipe
            digest, _ = hash_file(source.descriptor)
            made = await tables.convert_source(source, recipe, recipe.digest(digest), _progress(wanted.say))
            check_shape(AssetId(asset_id), stated.assets[AssetId(asset_id)], made.shape)
    _show(wanted, config, stated, AssetId(asset_id), made)
    if not wanted.yes:
        wanted.say(f"The same without questions:\n\n    {equivalent_command(wanted, entry, said)}\n")
        if not prompt_yes_no(wanted.ask, wanted.say, "Publish this?", default=False):
            wanted.say("Nothing was written.")
            return False
    add_entry(data_dir, entry | {"assets": {asset_id: said}})
    wanted.say(await _tell_node(config))
    return True


def _beneath(file: Path, data_dir: Path) -> Path:
    inside = data_dir / file
    if not file.is_absolute() and inside.exists():
        return inside
    path = Path.cwd() / file if not file.is_absolute() else file
    try:
        return data_dir / path.parent.resolve().relative_to(data_dir.resolve()) / path.name
    except ValueError:
        raise BadConfig(f"{file} is not in the data folder {data_dir}; move it there first: nothing outside it is read.") from None


def _id_of(path: Path) -> str:
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


def _ask(wanted: AddProductRequest, entry: dict[str, Any], said: dict[str, Any], seen: TableShape) -> None:
    """Complete what was said: which columns, what they hold, the label, the rules. Every answer is looked at when it is given."""
    dropped = _columns(wanted, said, seen.columns)
    keep = said.get("keep")
    kept = [one for one in seen.columns if one.name not in dropped and (keep is None or one.name in keep)]
    columns: dict[str, Any] = said.setdefault("columns", {})
    names = {column.name for column in kept}
    for name in columns:
        if name not in names:
            raise BadConfig(f"--column describes {name!r}, which is not a kept column; {_kept_are(kept)}")
    label = wanted.label
    if label is not None:
        _label(kept, label)
    elif not wanted.yes:
        question = "Which column is the outcome (label)? [none] "
        label = prompt_until_valid(wanted.ask, wanted.say, question, lambda text: _label(kept, text) if text else None)
    if label:
        columns.setdefault(label, {})["label"] = True
    if not wanted.yes:
        for column in kept:
            _about(wanted, column, columns)
    _words(wanted, entry)
    if not columns:
        del said["columns"]


def _label(kept: Sequence[TableColumn], name: str) -> str:
    if name not in {column.name for column in kept}:
        raise BadConfig(f"the label {name!r} is not a kept column; {_kept_are(kept)}")
    return name


def _kept_are(kept: Sequence[TableColumn]) -> str:
    return f"kept are: {', '.join(printable(column.name) for column in kept[:30])}."


def _columns(wanted: AddProductRequest, said: dict[str, Any], columns: Sequence[TableColumn]) -> set[str]:
    """Show every column that may identify people, and ask about it; returns what is dropped. What stays is named."""
    dropped = set(said.get("drop") or [])
    flagged = [column for column in columns if column.flags]
    stays = [column.name for column in flagged if wanted.keep_flagged or column.name in (said.get("keep") or ())]
    for column in flagged:
        for flag in column.flags:
            wanted.say(f"  ! {printable(column.name)} ({column.type}): {printable(flag)}")
        if column.name in stays or wanted.yes:
            continue
        if prompt_yes_no(wanted.ask, wanted.say, f"Drop {printable(column.name)}?", default=True):
            dropped.add(column.name)
            wanted.say(f"    {printable(column.name)} is dropped: it is not converted and no script sees it.")
        else:
            stays.append(column.name)
    open_columns = [printable(one.name) for one in flagged if one.name not in dropped and one.name not in stays]
    if open_columns:
        raise BadConfig(
            f"these columns may identify people: {', '.join(open_columns)}. Drop them (--drop), or say that they stay (--keep-flagged); "
            "--yes does not decide that."
        )
    if dropped:
        said["drop"] = sorted(dropped)
    if stays:
        said["keep_flagged"] = stays
    return dropped


def _about(wanted: AddProductRequest, column: TableColumn, columns: dict[str, Any]) -> None:
    """Ask what a column holds, where that is not said yet."""
    name, known = printable(column.name), columns.get(column.name, {})

    def checked(more: dict[str, Any]) -> dict[str, Any]:
        parse_description(f"column {name}", known | more)
        return more

    def bounds(text: str) -> dict[str, Any]:
        low, dots, high = text.partition("..")
        if text and not (low.strip() and dots and high.strip()):
            raise BadConfig(f"{text!r} is no range; write for example 0..100, or Enter for none.")
        return checked({"minimum": _scalar(low), "maximum": _scalar(high)} if text else {})

    def categories(text: str) -> dict[str, Any]:
        return checked({"categories": [word.strip() for word in text.split(",") if word.strip()]} if text else {})

    more: dict[str, Any] = {}
    if _RANGED.match(column.type) and not {"minimum", "maximum"} & set(known):
        question = f"{name} ({column.type}): plausible range, e.g. 0..100, rounder than your data's own extremes? [none] "
        more = prompt_until_valid(wanted.ask, wanted.say, question, bounds)
    elif column.type.startswith(("string", "category")) and "categories" not in known:
        question = f"{name} ({column.type}): which values may be named, separated by commas? [none] "
        more = prompt_until_valid(wanted.ask, wanted.say, question, categories)
    if more:
        columns[column.name] = known | more


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # `described` says what is wrong with it


def _words(wanted: AddProductRequest, entry: dict[str, Any]) -> None:
    """Ask for name, description, price and rules, where they are not said yet. A price is never taken for granted."""
    if "price" not in entry and wanted.yes:
        raise BadConfig("no price is stated, and --yes does not decide that: --price '0.02 ether', or --price 0 for nothing.")
    if wanted.yes:
        return
    for key, question, default in (
        ("name", "Name of the product", entry["id"]),
        ("description", "What is it, from when, in which units", "none"),
    ):
        if key not in entry and (text := wanted.ask(f"{question}? [{default}] ").strip()):
            entry[key] = text
    if "price" not in entry:
        entry["price"] = prompt_until_valid(
            wanted.ask, wanted.say, "Price of a lease? [for example 0.02 ether; 0: nothing] ", _price
        )
    rules = entry.setdefault("rules", {})
    for key, kind in (("policy", Policy), ("release", Release), ("live_output", LiveOutput), ("rehearsal", Rehearsal)):
        if key not in rules:
            rules[key] = prompt_until_valid(
                wanted.ask, wanted.say, f"{key} ({' | '.join(kind)})? [{next(iter(kind))}] ", _one_of(kind)
            )
    if "show_messages" not in rules:
        question = "Show a Spender its script's error messages, which may quote rows?"
        rules["show_messages"] = prompt_yes_no(wanted.ask, wanted.say, question, default=False)


def _price(text: str) -> str:
    if not text:
        raise BadConfig("a price must be said; 0 offers the product for nothing.")
    parse_price(text)
    return text


def _one_of(kind: type[StrEnum]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text and text not in list(kind):
            raise BadConfig(f"{text!r} is none of {', '.join(kind)}.")
        return text or next(iter(kind)).value

    return read


def equivalent_command(wanted: AddProductRequest, entry: dict[str, Any], said: dict[str, Any]) -> str:
    """The command line that says what was answered so far: no answer is given twice."""
    words = ["pandacea", "products", "add", str(wanted.file)]
    for key, value in entry.items():
        if key == "rules":
            words += [word for rule, chosen in value.items() for word in _rule_words(rule, chosen)]
        else:
            words += [f"--{key}", ",".join(value) if isinstance(value, list) else str(value)]
    labels = [name for name, about in said.get("columns", {}).items() if about.get("label")]
    for name, about in said.get("columns", {}).items():
        if rest := {key: value for key, value in about.items() if key != "label"}:
            words += ["--column", yaml.safe_dump({name: rest}, default_flow_style=True, allow_unicode=True, width=10_000).strip()]
    words += [word for name in labels for word in ("--label", name)]
    for key in ("drop", "keep"):
        words += [f"--{key}", ",".join(said[key])] if said.get(key) else []
    for key in ("separator", "table", "format"):
        words += [f"--{key}", said[key]] if said.get(key) else []
    if "mock" in said:
        words += ["--mock-rows", str(said["mock"]["rows"])]
    if said.get("keep_flagged"):
        words.append("--keep-flagged")
    return shlex.join([*words, *wanted.options, "--yes"])


def _rule_words(rule: str, chosen: Any) -> list[str]:
    if rule == "show_messages":
        return ["--show-messages"] if chosen else []
    return [f"--{rule.replace('_', '-')}", str(chosen)]


def _show(wanted: AddProductRequest, config: Config, stated: DeclaredProduct, asset_id: AssetId, made: StoredTable) -> None:
    """Everything that becomes public, as text, and as the page in a file."""
    asset = Asset(asset_id, UNPUBLISHED, made.path, "arrow", made.shape)
    public = build_document(stated, {asset_id: asset})
    said = stated.assets[asset_id]
    mock = mock_csv(public["assets"][0]["schema"], min(said.mock_rows, 5), said.mock_seed).decode()
    wanted.say("\nThis becomes public, and nothing else:\n")
    wanted.say(printable(yaml.safe_dump(public, sort_keys=False, allow_unicode=True, width=120), limit=200_000, newlines=True))
    wanted.say(f"Mock rows ({said.mock_rows}, made from the above alone), beginning:\n")
    wanted.say(printable(mock, limit=20_000, newlines=True))
    if made.shape.rows == 0:
        wanted.say("  ! the file has column names and no rows.")
    for warning in warnings(public):
        wanted.say(f"  ! {warning}")
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
    wanted.say(f"The same as the page that people will see: {page}\n")


def warnings(public: dict[str, Any]) -> list[str]:
    """What the Earner should know about the rules chosen."""
    said = []
    if public["rules"]["policy"] == Policy.ANY_CODE:
        said.append("any-code: whoever holds a lease may copy out what fits the output limits, row by row.")
        if public["rules"]["release"] == Release.AUTO:
            said.append("auto: and nobody looks at it before it leaves.")
    return said


async def _tell_node(config: Config) -> str:
    answer = await server.call_running_node(config, "products reload", {})
    if answer is None:
        return "Written. No node is running; the next start takes it up."
    troubles = answer["troubles"]
    if troubles:
        raise Refused("; ".join(f"{one['product_id']}: {one['detail']}" for one in troubles))
    return f"On offer: {', '.join(answer['products'])}."


async def remove_product(config: Config, product_id: str) -> str:
    """Take a product off the offer. Its versions and tables stay: leases that run and replays need them. Raises BadConfig."""
    remove_entry(config.privacy.data_dir, product_id)
    return await _tell_node(config)
