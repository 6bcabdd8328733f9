"""How deep an approval must be before it counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ConfidenceKind(StrEnum):
    """What must confirm an approval before it counts."""

    SAFE = "safe"
    FINALIZED = "finalized"
    CONFIRMATIONS = "confirmations"


@dataclass(frozen=True, slots=True)
class Confidence:
    """`confirmations`: blocks on top of the approval's; 0 only on development chains."""

    kind: ConfidenceKind = ConfidenceKind.SAFE
    confirmations: int = 0


DEFAULT_CONFIDENCE: Final = Confidence()
