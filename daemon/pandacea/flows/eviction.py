"""Choose which results are evicted when there is no room for another: a Spender's own oldest, then those of whoever holds most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pandacea.domain.ids import Address, ComputationId
from pandacea.flows.unit_of_work import StoredResult


class Eviction:
    """The stored results of all Spenders; each that is yielded counts as gone from then on."""

    def __init__(self, stored: Mapping[Address, int], oldest: Sequence[StoredResult], needed: int) -> None:
        """Sizes in bytes.

        Args:
            stored: what each Spender's stored results take, those among them that may not be evicted.
            oldest: what may be evicted, oldest first.
            needed: the result that there must be room for.
        """
        self._stored: Final = dict(stored)
        self._needed = needed
        self._newest_first: dict[Address, list[StoredResult]] = {}
        for result in reversed(oldest):
            self._newest_first.setdefault(result.spender, []).append(result)

    def evict_own(self, max_bytes: int) -> Iterator[ComputationId]:
        """Yield results until those of each Spender, with the needed one, take at most `max_bytes`."""
        for spender in list(self._newest_first):
            while self._stored.get(spender, 0) + self._needed > max_bytes and self._newest_first.get(spender):
                yield self._pop_oldest(spender)

    def evict_largest(self, max_bytes: int) -> Iterator[ComputationId]:
        """Yield results until all, with the needed one, take at most `max_bytes`: always the oldest of the Spender who holds most.

        So nobody who holds less than an equal share loses anything to somebody who holds more.
        """
        while sum(self._stored.values()) + self._needed > max_bytes and self._newest_first:
            yield self._pop_oldest(max(self._newest_first, key=lambda spender: self._stored.get(spender, 0)))

    def _pop_oldest(self, spender: Address) -> ComputationId:
        result = self._newest_first[spender].pop()
        if not self._newest_first[spender]:
            del self._newest_first[spender]
        self._stored[spender] -= result.size
        return result.computation_id
