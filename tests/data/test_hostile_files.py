"""Files that attack: refused with a reason, and the node is as it was."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandacea.catalogue.products_file import read_products
from pandacea.catalogue.registry import ProductCatalogue
from pandacea.catalogue.sources import open_source
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.table import Recipe, SourceFormat
from pandacea.errors import BadConfig
from pandacea.flows.ports import UnreadableSource
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox

pytestmark = pytest.mark.asyncio(loop_scope="session")


def million_columns(path: Path) -> None:
    path.write_text(",".join(f"c{n}" for n in range(1_000_000)) + "\n" + ",".join("1" * 1_000_000) + "\n")


def broken_offsets(path: Path) -> None:
    """A text column whose second offset points far behind its data."""
    good = pa.array(["aaaa", "bbbb", "cccc"])
    offsets = struct.pack("<4i", 0, 2_000_000_000, 8, 12)
    bad = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), good.buffers()[2]])
    with pa.ipc.new_file(str(path), pa.schema([("x", pa.string())])) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([bad], names=["x"]))


def cut_arrow(path: Path) -> None:
    with pa.ipc.new_file(str(path), pa.schema([("x", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"x": list(range(10_000))}))
    path.write_bytes(path.read_bytes()[:40_000])


def lying_footer(path: Path) -> None:
    """Valid magic words around a footer of noise."""
    noise = np.random.default_rng(1).bytes(50_000)
    path.write_bytes(b"PAR1" + noise + struct.pack("<I", 40_000) + b"PAR1")


def sqlite_view(path: Path) -> None:
    """A view that never ends, under the name the Earner would choose."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE VIEW people AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n")
        db.execute("CREATE TABLE other (x)")
        db.commit()


def sqlite_generated(path: Path) -> None:
    """A column whose value is computed by the file's own expression."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE people (x INTEGER, y TEXT GENERATED ALWAYS AS (hex(zeroblob(1000))) VIRTUAL)")
        db.execute("INSERT INTO people (x) VALUES (1)")
        db.commit()


def sqlite_broken_schema(path: Path) -> None:
    """A schema table whose text is not SQL."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE people (x)")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE people (((' WHERE name = 'people'")
        db.commit()


@pytest.mark.parametrize(
    ("make", "form", "words"),
    [
        (million_columns, "csv", "it has 1000000 columns"),
        (broken_offsets, "arrow", "it cannot be read as Arrow"),
        (cut_arrow, "arrow", "it cannot be read as Arrow"),
        (lying_footer, "parquet", "it cannot be read as Parquet"),
        (sqlite_view, "sqlite", "'people' is a view"),
        (sqlite_generated, "sqlite", "generated columns"),
        (sqlite_broken_schema, "sqlite", "it cannot be read as SQLite"),
    ],
)
async def test_a_file_that_attacks_its_reader_is_refused(
    tables: TableStore, data_dir: Path, tmp_path: Path, make: Callable[[Path], None], form: str, words: str
) -> None:
    """In a real sandbox; the reason is reported, and no file is left behind."""
    source = data_dir / "people"
    make(source)
    recipe = Recipe(SourceFormat(form), table="people" if form == "sqlite" else None)
    with open_source(source, data_dir) as file, pytest.raises(UnreadableSource, match=words):
        await tables.convert_source(file, recipe, "0" * 64, lambda _done, _total: None)
    assert list((tmp_path / "state" / "tables" / "incoming").iterdir()) == []
    assert list((tmp_path / "state" / "tables").glob("*.arrow")) == []


async def test_a_table_that_unpacks_without_end_stops_at_its_cap(
    sandbox: BubblewrapSandbox, data_dir: Path, tmp_path: Path
) -> None:
    """A zip bomb: 64 million zeros in a few kilobytes of Parquet, against a cap of 64 MiB."""
    source = data_dir / "bomb.parquet"
    zeros = pa.table({"x": np.zeros(4 << 20)})
    with pq.ParquetWriter(source, zeros.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(4):
            writer.write_table(zeros)
    assert source.stat().st_size < MIB
    small = TableStore(tmp_path / "state" / "tables", sandbox, Limits(), max_bytes=64 * MIB)
    with open_source(source, data_dir) as file, pytest.raises(UnreadableSource, match="unpack to 134"):
        await small.convert_source(file, Recipe(SourceFormat.PARQUET), "0" * 64, lambda _done, _total: None)
    # A file that lies about its size meets the file system's limit instead.
    text = data_dir / "long.csv"
    text.write_text("x\n" + "1\n" * (9 << 20))
    with open_source(text, data_dir) as file, pytest.raises(UnreadableSource, match="a table may have 67108864 bytes"):
        await small.convert_source(file, Recipe(SourceFormat.CSV), "1" * 64, lambda _done, _total: None)


async def test_a_value_larger_than_memory_is_refused(tables: TableStore, data_dir: Path) -> None:
    """One field of 1.5 GB: the reader runs out of its memory, not the node."""
    source = data_dir / "people.csv"
    with source.open("wb") as file:
        file.write(b'x\n"')
        for _ in range(96):
            file.write(b"a" * (16 * MIB))
        file.write(b'"\n')
    with open_source(source, data_dir) as opened_file, pytest.raises(UnreadableSource, match="memory"):
        await tables.convert_source(opened_file, Recipe(SourceFormat.CSV), "0" * 64, lambda _done, _total: None)


@pytest.mark.parametrize("kind", ["symlink", "symlinked folder", "pipe", "folder", "outside"])
async def test_only_regular_files_beneath_the_data_folder_are_opened(
    catalogue: ProductCatalogue, data_dir: Path, tmp_path: Path, kind: str
) -> None:
    """No link on the way, no pipe that would block, nothing outside; the product is not offered, and the reason names the file."""
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nhunter2\n")
    name = "people.csv"
    if kind == "symlink":
        (data_dir / name).symlink_to(secret)
    elif kind == "symlinked folder":
        (data_dir / "inner").symlink_to(tmp_path)
        name = "inner/secret.csv"
    elif kind == "pipe":
        os.mkfifo(data_dir / name)
    elif kind == "folder":
        (data_dir / name).mkdir()
    else:
        name = "../secret.csv"
    entry = {"id": "p", "assets": {"people": {"file": name}}}
    (data_dir / "products.yaml").write_text(json.dumps({"products": [entry]}))
    if kind == "outside":
        with pytest.raises(BadConfig, match="must be a file's name in"):
            read_products(data_dir)
        return
    (rejected,) = await catalogue.register(read_products(data_dir), data_dir)
    assert name.split("/", maxsplit=1)[0] in rejected.detail
    assert catalogue.list_products() == []


async def test_a_file_that_is_written_to_meanwhile_is_refused(tables: TableStore, data_dir: Path, tmp_path: Path) -> None:
    """Half of one state and half of another would be a table that never was."""
    source = data_dir / "people.csv"
    source.write_text("x\n" + "1\n" * 1000)

    def write(_done: float, _total: float) -> None:
        with source.open("a") as more:
            more.write("2\n")

    with open_source(source, data_dir) as file, pytest.raises(BadConfig, match="changed while it was read"):
        await tables.convert_source(file, Recipe(SourceFormat.CSV), "0" * 64, write)
    assert list((tmp_path / "state" / "tables").glob("*.arrow")) == []
