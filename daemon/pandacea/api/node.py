"""What the routes serve from: one frozen bundle, built by `app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from pandacea.api.rate_limit import RateLimits, StreamLimiter
from pandacea.domain.ids import Address
from pandacea.domain.limits import Limits
from pandacea.files.results import ResultStore
from pandacea.flows.accept_job import SubmitPorts
from pandacea.flows.approve_code import CodeApprovalPorts
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.ports import Catalogue, Clock, LeaseCache
from pandacea.flows.privacy import PrivacyService
from pandacea.flows.unit_of_work import Database
from pandacea.flows.uploads import UploadStore
from pandacea_sdk.protocol.json_types import JsonObject


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a computation sent now would run, and for each part `ok` or the reason why not."""

    ready: bool
    parts: JsonObject


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Everything a route may use."""

    earner: Address
    database: Database
    leases: LeaseCache
    catalogue: Catalogue
    submit: SubmitPorts
    """For `flows.submit` and `flows.rehearse` alone."""
    chain_id: int
    contract: Address
    privacy: PrivacyService
    limits: Limits
    """Of one computation."""
    results: ResultStore
    max_wait_seconds: float
    """How long a computation may wait in the queue before it fails."""
    notifier: JobNotifier
    clock: Clock
    streams: StreamLimiter
    uploads: UploadStore
    approve: CodeApprovalPorts
    well_known: JsonObject
    readiness: Callable[[], Readiness]
    """Answers from memory, without I/O."""
    rates: RateLimits = field(default_factory=RateLimits)


NODE: Final = web.AppKey("node", NodeContext)
