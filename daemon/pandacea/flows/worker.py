"""What a worker works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pandacea.domain.limits import Limits
from pandacea.flows.job_notifier import JobNotifier
from pandacea.flows.ports import Catalogue, Clock, LeaseCache, PrivacyService
from pandacea.flows.result_store import ResultStore
from pandacea.flows.sign_result import ResultSigner
from pandacea.flows.unit_of_work import Database, ProductStore


@dataclass(frozen=True, slots=True)
class ExecutePorts:
    """From a waiting job to its result."""

    database: Database
    leases: LeaseCache
    catalogue: Catalogue
    products: ProductStore
    privacy: PrivacyService
    signer: ResultSigner
    clock: Clock
    limits: Limits
    threads: int
    results: ResultStore
    uploads_dir: Path
    post_results: bool
    notifier: JobNotifier
    max_running_per_spender: int = 64
    """Jobs of one Spender that may run at one time."""
    is_stopping: Callable[[], bool] = lambda: False
    """Whether no new run may start now: the node is stopping."""
