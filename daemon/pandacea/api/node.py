"""What the routes serve from: one frozen bundle, put together by `app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from pandacea.api.rate_limit import RateLimits, StreamLimiter
from pandacea.domain.ids import Address
from pandacea.flows.accept_job import SubmitPorts
from pandacea.flows.approve_code import CodeApprovalPorts
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.ports import Catalogue, Clock, LeaseCache
from pandacea.flows.unit_of_work import Database
from pandacea.flows.uploads import UploadStore


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the node may be believed now, and each part's own word."""

    ready: bool
    parts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Everything a route may use."""

    earner: Address
    database: Database
    leases: LeaseCache
    catalogue: Catalogue
    submit: SubmitPorts
    notifier: JobNotifier
    clock: Clock
    streams: StreamLimiter
    uploads: UploadStore
    approve: CodeApprovalPorts
    well_known: dict[str, Any]
    readiness: Callable[[], Readiness]
    """From memory: no I/O."""
    rates: RateLimits = field(default_factory=RateLimits)


NODE: Final = web.AppKey("node", NodeContext)
