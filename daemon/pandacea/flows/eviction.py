"""Which results give way when there is no room for another: a Spender's own first, then those of whoever holds most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pandacea.domain.ids import Address, ComputationId
from pandacea.flows.unit_of_work import StoredResult


class Eviction:
    """The kept results of all Spenders; each that is named as gone makes room."""

    def __init__(self, stored: Mapping[Address, int], oldest: Sequence[StoredResult], needed: int) -> None:
        """Sizes in bytes.

        Args:
            sizes: what each Spender's kept results take, those among them that may not go.
            oldest: what may go, oldest first.
            largest: the result that there must be room for.
        """
        self._sizes: Final = dict(stored)
        self._largest = needed
        self._oldest: dict[Address, list[StoredResult]] = {}
        for result in reversed(oldest):
            self._oldest.setdefault(result.spender, []).append(result)

    def evict_own(self, max_bytes: int) -> Iterator[ComputationId]:
        """What goes until each Spender's results and the largest fit into the Spender's room."""
        for spender in list(self._oldest):
            while self._sizes.get(spender, 0) + self._largest > max_bytes and self._oldest.get(spender):
                yield self._pop(spender)

    def evict_largest(self, max_bytes: int) -> Iterator[ComputationId]:
        """What goes until all results and the largest fit into the room of all: always the oldest of the one who holds most.

        So nobody who holds less than an equal share loses anything to somebody who holds more.
        """
        while sum(self._sizes.values()) + self._largest > max_bytes and self._oldest:
            yield self._pop(max(self._oldest, key=lambda spender: self._sizes.get(spender, 0)))

    def _pop(self, spender: Address) -> ComputationId:
        result = self._oldest[spender].pop()
        if not self._oldest[spender]:
            del self._oldest[spender]
        self._sizes[spender] -= result.size
        return result.computation_id
