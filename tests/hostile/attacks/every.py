"""All attacks; names are unique."""

from __future__ import annotations

from typing import Final

from tests.hostile.attack import Attack
from tests.hostile.attacks import files, kernel, network, resources, results, supervisor

ATTACKS: Final[tuple[Attack, ...]] = (
    *network.ATTACKS,
    *kernel.ATTACKS,
    *supervisor.ATTACKS,
    *files.ATTACKS,
    *resources.ATTACKS,
    *results.ATTACKS,
)
