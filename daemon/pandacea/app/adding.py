"""`pandacea products add`: look at a file, ask, convert, show exactly what becomes public, and only then write products.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from pandacea.api.product_page import product_page
from pandacea.app import desk, parts
from pandacea.catalogue.document import document
from pandacea.catalogue.mock import mock_csv
from pandacea.catalogue.products_file import StatedProduct, product_of
from pandacea.catalogue.sources import opened, sha256_of
from pandacea.catalogue.stated_assets import described
from pandacea.catalogue.stating import add_entry, check_new, remove_entry
from pandacea.catalogue.tables import Made, Tables
from pandacea.config import Config
from pandacea.domain.ids import ASSET_ID, AssetId
from pandacea.domain.printable import printable
from pandacea.domain.product import Asset, LiveOutput, Policy, Rehearsal, Release
from pandacea.domain.table import TableColumn, TableShape
from pandacea.errors import BadConfig, Refused
from pandacea.sandbox.choose import choose

UNPUBLISHED: Final = "made when the product is published"
_RANGED: Final = re.compile(r"u?int|float|decimal|date|timestamp")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was said on the command line; the rest is asked for, or with `yes` left at the strictest value."""

    file: Path
    entry: dict[str, Any]
    """Keys of a product in products.yaml that were given: id, name, description, price, keywords, rules."""
    asset: dict[str, Any]
    """Keys of its asset that were given: drop, keep, separator, table, format, mock, columns."""
    label: str | None = None
    yes: bool = False
    keep_flagged: bool = False
    """With `yes`: columns that look as if they identified people stay."""
    say: Callable[[str], None] = print
    ask: Callable[[str], str] = field(default=input)


async def add_product(config: Config, wanted: Wanted) -> bool:
    """Register one file as a product. False: the Earner said no, and nothing was written.

    Raises:
        BadConfig, UnfitSource: the file or a word of it cannot be used; nothing was written.
    """
    data_dir = config.privacy.data_dir
    path = _beneath(wanted.file, data_dir)
    entry = {"id": _id_of(path)} | wanted.entry
    asset_id = _id_of(path)
    said = {"file": str(path.relative_to(data_dir))} | wanted.asset
    check_new(data_dir, str(entry["id"]))
    async with AsyncExitStack() as stack:
        tables = await _tables(config, stack)
        with opened(path, data_dir) as source:
            draft = product_of(entry | {"assets": {asset_id: said}}, data_dir)
            seen = await tables.look(source, draft.assets[AssetId(asset_id)].recipe)
            _ask(wanted, entry, said, seen)
            stated = product_of(entry | {"assets": {asset_id: said}}, data_dir)
            recipe = stated.assets[AssetId(asset_id)].recipe
            digest, _ = sha256_of(source.descriptor)
            made = await tables.make(source, recipe, recipe.digest(digest), _progress(wanted.say))
    _show(wanted, config, stated, AssetId(asset_id), made)
    if not wanted.yes and not _agreed(wanted.ask("Publish this? [y/N] ")):
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


async def _tables(config: Config, stack: AsyncExitStack) -> Tables:
    """The node's tables, with a sandbox of this command's own beside a node that may be running."""
    sandbox, _ = await choose(config.privacy.sandbox, *parts.sandbox_settings(config, purpose="tools", pool=0))
    await sandbox.open()
    stack.push_async_callback(sandbox.close)
    return Tables(config.store.state_dir / "tables", sandbox, config.privacy.limits.limits(), incoming="incoming-command")


def _progress(say: Callable[[str], None]) -> Callable[[float, float], None]:
    last = -10

    def progress(done: float, total: float) -> None:
        nonlocal last
        percent = int(100 * done / total) if total else 0
        if percent >= last + 10:
            last = percent
            say(f"Converting: {percent} %")

    return progress


def _ask(wanted: Wanted, entry: dict[str, Any], said: dict[str, Any], seen: TableShape) -> None:
    """Complete what was said: which columns, what they hold, the label, the rules."""
    dropped = _columns(wanted, said, seen.columns)
    kept = [column for column in seen.columns if column.name not in dropped]
    columns: dict[str, Any] = {name: dict(about) for name, about in (said.get("columns") or {}).items()}
    label = wanted.label if wanted.label or wanted.yes else wanted.ask("Which column is the outcome (label)? [none] ").strip()
    if label:
        if label not in {column.name for column in kept}:
            raise BadConfig(
                f"the label {label!r} is not a kept column; kept are: {', '.join(column.name for column in kept[:30])}."
            )
        columns.setdefault(label, {})["label"] = True
    if not wanted.yes:
        for column in kept:
            _about(wanted, column, columns)
        _words(wanted, entry)
    if columns:
        said["columns"] = columns


def _columns(wanted: Wanted, said: dict[str, Any], columns: Sequence[TableColumn]) -> set[str]:
    """Show every column, and ask about those that may identify people; returns what is dropped."""
    dropped = set(said.get("drop") or [])
    for column in columns:
        for flag in column.flags:
            wanted.say(f"  ! {printable(column.name)} ({column.type}): {printable(flag)}")
        if (
            column.flags
            and not wanted.yes
            and wanted.ask(f"Drop {printable(column.name)}? [Y/n] ").strip().lower() in {"", "y", "yes"}
        ):
            dropped.add(column.name)
            wanted.say(f"    {printable(column.name)} is dropped: it is not converted and no script sees it.")
    flagged = [printable(column.name) for column in columns if column.flags and column.name not in dropped]
    if wanted.yes and flagged and not wanted.keep_flagged:
        raise BadConfig(
            f"these columns may identify people: {', '.join(flagged)}. Drop them (--drop), or say that they stay (--keep-flagged); "
            "--yes does not decide that."
        )
    if dropped:
        said["drop"] = sorted(dropped)
    return dropped


def _about(wanted: Wanted, column: TableColumn, columns: dict[str, Any]) -> None:
    name = printable(column.name)
    if _RANGED.match(column.type) and not {"minimum", "maximum"} & set(columns.get(column.name, {})):
        text = wanted.ask(
            f"{name} ({column.type}): plausible range, e.g. 0..100, rounder than your data's own extremes? [none] "
        ).strip()
        if text:
            low, _, high = text.partition("..")
            columns.setdefault(column.name, {}).update(minimum=yaml.safe_load(low), maximum=yaml.safe_load(high))
    elif column.type.startswith(("string", "category")) and "categories" not in columns.get(column.name, {}):
        text = wanted.ask(f"{name} ({column.type}): which values may be named, separated by commas? [none] ").strip()
        if text:
            columns.setdefault(column.name, {})["categories"] = [word.strip() for word in text.split(",")]
    if column.name in columns:
        described(f"column {name}", columns[column.name])  # a mistake is told while it can be mended


def _words(wanted: Wanted, entry: dict[str, Any]) -> None:
    for key, question in (
        ("name", "Name of the product"),
        ("description", "What is it, from when, in which units"),
        ("price", "Price"),
    ):
        if key not in entry and (text := wanted.ask(f"{question}? [{entry['id'] if key == 'name' else 'none'}] ").strip()):
            entry[key] = text
    rules = entry.setdefault("rules", {})
    for key, kind in (("policy", Policy), ("release", Release), ("live_output", LiveOutput), ("rehearsal", Rehearsal)):
        if key not in rules:
            values = [value.value for value in kind]
            rules[key] = wanted.ask(f"{key} ({' | '.join(values)})? [{values[0]}] ").strip() or values[0]


def _agreed(text: str) -> bool:
    return text.strip().lower() in {"y", "yes"}


def _show(wanted: Wanted, config: Config, stated: StatedProduct, asset_id: AssetId, made: Made) -> None:
    """Everything that becomes public, as text, and as the page in a file."""
    asset = Asset(asset_id, UNPUBLISHED, made.path, "arrow", made.shape.as_json(), made.shape.rows)
    public = document(stated, {asset_id: asset})
    said = stated.assets[asset_id]
    mock = mock_csv(public["assets"][0]["schema"], min(said.mock_rows, 5), said.mock_seed).decode()
    wanted.say("\nThis becomes public, and nothing else:\n")
    wanted.say(printable(yaml.safe_dump(public, sort_keys=False, allow_unicode=True, width=120), limit=200_000, newlines=True))
    wanted.say(f"Mock rows ({said.mock_rows}, made from the above alone), beginning:\n")
    wanted.say(printable(mock, limit=20_000, newlines=True))
    for warning in warnings(public):
        wanted.say(f"  ! {warning}")
    page = config.store.state_dir / "preview.html"
    page.write_bytes(
        product_page(
            public,
            version=UNPUBLISHED,
            signature=UNPUBLISHED,
            product_hash=UNPUBLISHED,
            earner=config.earner.address,
            limits=config.privacy.limits.limits().as_json(),
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
    answer = await desk.ask_running(config, "products reload", {})
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
