"""What a worker works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pandacea.domain.limits import Limits
from pandacea.flows.books import Books, ProductBook
from pandacea.flows.ports import Catalogue, Clock, LeaseBook, PrivacyService
from pandacea.flows.seal import Sealer
from pandacea.flows.shelf import Shelf
from pandacea.flows.watch import Watch


@dataclass(frozen=True, slots=True)
class ExecutePorts:
    """From a waiting job to its result."""

    books: Books
    book: LeaseBook
    catalogue: Catalogue
    products: ProductBook
    privacy: PrivacyService
    sealer: Sealer
    clock: Clock
    limits: Limits
    threads: int
    shelf: Shelf
    uploads_dir: Path
    post_results: bool
    watch: Watch
    most_running: int = 64
    """Jobs of one Spender that may run at one time."""
    pause: Callable[[], bool] = lambda: False
    """Whether no new run may start now: the node is stopping."""
