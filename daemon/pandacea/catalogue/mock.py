"""Make mock rows from the published description of a table, and from nothing else.

The input is public: names, types, the ranges and categories that the Earner typed, the rounded share of missing values, and a seed. So a
mock tells nothing that the product's page does not tell, and anybody can make it again.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from pandacea_sdk.protocol.json_types import JsonMapping

_CATEGORY: Final = re.compile(r"category\[(.+)\]")
_DECIMAL: Final = re.compile(r"decimal\d*\((\d+), ?(-?\d+)\)")
_INTEGER: Final = re.compile(r"(u?)int(8|16|32|64)")
_TEXTS: Final = 12
"""Different texts in a column without categories."""
_FIRST_DAY: Final = dt.date(2010, 1, 1)
_DAYS: Final = 3652
MAX_ROWS: Final = 10_000

Cell = Callable[[random.Random], str]


def mock_csv(columns: Sequence[JsonMapping], rows: int, seed: int) -> bytes:
    """Return the mock as CSV text. `columns`: as published (`name`, `type`, `missing`, `minimum`, `maximum`, `categories`)."""
    generator = random.Random(seed)  # noqa: S311 - plausible rows, no secrets
    cells = [_column(column) for column in columns]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column["name"] for column in columns])
    for _ in range(rows):
        writer.writerow([cell(generator) for cell in cells])
    return out.getvalue().encode()


def _column(column: JsonMapping) -> Cell:
    value, missing = _values(column), float(column.get("missing", 0))

    def cell(generator: random.Random) -> str:
        # Both are drawn each time, so that a changed share of missing values does not reshuffle everything else.
        absent, text = generator.random() < missing, value(generator)
        return "" if absent else text

    return cell


def _values(column: JsonMapping) -> Cell:
    kind = str(column["type"])
    if inner := _CATEGORY.fullmatch(kind):
        kind = inner[1]
    categories = column.get("categories")
    if categories:
        return lambda generator: str(generator.choice(categories))
    low, high = column.get("minimum"), column.get("maximum")
    if isinstance(low, str) or isinstance(high, str) or kind.startswith(("date", "timestamp")):
        return _times(kind, low, high)
    if kind == "bool":
        return lambda generator: generator.choice(("True", "False"))
    if match := _INTEGER.fullmatch(kind):
        return _integers(
            0 if low is None else int(low), (1 << int(match[2]) - 2) - 1 if high is None else int(high), bare=high is None
        )
    if kind.startswith("float"):
        return _floats(0.0 if low is None else float(low), 1.0 if high is None else float(high))
    if match := _DECIMAL.fullmatch(kind):
        return _decimals(int(match[2]), Decimal(str(low or 0)), Decimal(str(1 if high is None else high)))
    if kind.startswith("time"):
        return lambda generator: f"{generator.randrange(24):02}:{generator.randrange(60):02}:{generator.randrange(60):02}"
    if kind == "string":
        return lambda generator: f"{column['name']}-{generator.randrange(_TEXTS) + 1}"
    return lambda _generator: ""


def _integers(low: int, high: int, *, bare: bool) -> Cell:
    high = min(high, low + 99) if bare else high
    return lambda generator: str(generator.randint(low, max(low, high)))


def _floats(low: float, high: float) -> Cell:
    # Four significant digits of the range: no more precise than a person would type, always with a decimal point.
    step = 10.0 ** (len(str(int(max(abs(high - low), 1)))) - 4)
    return lambda generator: repr(float(round(round(generator.uniform(low, high) / step) * step, 6)))


def _decimals(scale: int, low: Decimal, high: Decimal) -> Cell:
    unit = Decimal(1).scaleb(-scale)
    return lambda generator: str((low + (high - low) * Decimal(str(round(generator.random(), 6)))).quantize(unit))


def _times(kind: str, low: object, high: object) -> Cell:
    start = dt.datetime.fromisoformat(str(low)) if low else dt.datetime.combine(_FIRST_DAY, dt.time())
    end = dt.datetime.fromisoformat(str(high)) if high else start + dt.timedelta(days=_DAYS)
    start, end = start.replace(tzinfo=None), end.replace(tzinfo=None)
    seconds = max(int((end - start).total_seconds()), 0)
    day_only = kind.startswith("date") or (kind == "string" and len(str(low or high)) <= len("2010-01-01"))
    zone = "+00:00" if ", tz=" in kind else ""

    def cell(generator: random.Random) -> str:
        moment = start + dt.timedelta(seconds=generator.randint(0, seconds))
        return moment.date().isoformat() if day_only else moment.isoformat(sep=" ") + zone

    return cell
