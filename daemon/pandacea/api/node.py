"""What the routes serve from: one frozen bundle, put together by `app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from pandacea.api.throttle import Rates, Streams
from pandacea.domain.ids import Address
from pandacea.flows.approve import ApprovePorts
from pandacea.flows.books import Books
from pandacea.flows.ports import Catalogue, Clock, LeaseBook
from pandacea.flows.submit import SubmitPorts
from pandacea.flows.uploads import Uploads
from pandacea.flows.watch import Watch


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the node may be believed now, and each part's own word."""

    ready: bool
    parts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """Everything a route may use."""

    earner: Address
    books: Books
    book: LeaseBook
    catalogue: Catalogue
    submit: SubmitPorts
    watch: Watch
    clock: Clock
    streams: Streams
    uploads: Uploads
    approve: ApprovePorts
    well_known: dict[str, Any]
    readiness: Callable[[], Readiness]
    """From memory: no I/O."""
    rates: Rates = field(default_factory=Rates)


NODE: Final = web.AppKey("node", Node)
