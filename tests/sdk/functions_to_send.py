"""Functions as a Spender has them in a module: those above the line can be sent, those below cannot."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

RATE = 0.1


def train(features: Any, labels: Any, params: Any, uploads: Any) -> Any:
    """Return what it was given, as JSON: 'ä'."""
    import math

    def scaled(value: float) -> Any:
        return value * params["lr"]

    started: Any = [len(one) for one in (features, labels)]
    return {"rows": started, "lr": scaled(math.floor(1.5)), "uploads": sorted(uploads)}


def count(table: Any) -> int:
    return len(table) if table else count([0])


def fail(table: Any) -> None:
    raise KeyError("agee")


def save(table: Any) -> None:
    import pathlib

    pathlib.Path("model.txt").write_text(f"{len(table)} rows", encoding="utf-8")


# ---------------------------------------------------------------- not these


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def plainly_decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def closes_over(rows: int) -> Callable[[Any], Any]:
    def inner(table: Any) -> Any:
        return table[:rows]

    return inner


def makes_nested() -> Callable[[Any], Any]:
    def nested(table: Any) -> Any:
        return table

    return nested


class SentModel:
    def fit(self, table: Any) -> Any:
        return table


def uses_module(table: Any) -> Any:
    length = len(table)
    return json.dumps(length)


def uses_constant(table: Any) -> Any:
    def inner() -> float:
        return RATE

    return inner()


@decorated
def wrapped(table: Any) -> Any:
    return table


@plainly_decorated
def marked(table: Any) -> Any:
    return table


def yields(table: Any) -> Iterator[Any]:
    yield table


async def waits(table: Any) -> Any:
    return table


def with_default(table: Any, rate: float = 0.1) -> Any:
    return rate


def with_stars(*tables: Any) -> Any:
    return tables


def with_more(table: Any, rate: float) -> Any:
    return rate


ANONYMOUS = lambda table: table  # noqa: E731  # what is refused
