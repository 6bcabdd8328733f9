"""Approval of scripts. It covers the script AND what it is given: inputs, their names and columns, uploads, params."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pandacea.domain.ids import Address, Hash32, ProductId
from pandacea.domain.params_schema import NO_PARAMS, find_violation
from pandacea_sdk.protocol.json_types import JsonObject


class CodeState(StrEnum):
    """The Earner's decision on a script."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class CodeRecord:
    """One script as it was submitted, and what was decided. Times are Unix seconds."""

    code_id: Hash32
    product_id: ProductId
    code: str
    code_sha256: str
    inputs: Mapping[str, str]
    """variable name -> asset id"""
    uploads: Sequence[str]
    """File names under /workspace/in that it may be given: their bytes change from run to run, as params do."""
    params_schema: JsonObject
    note: str
    submitter: Address
    known: bool
    """The submitter was the Spender of an approved lease at that time."""
    created_at: float
    columns: Mapping[str, str] = field(default_factory=dict)
    """asset id -> `Asset.columns_sha256` at the submission: a column that is added later was not looked at."""
    state: CodeState = CodeState.PENDING
    reason: str = ""
    decided_at: float | None = None


@dataclass(frozen=True, slots=True)
class CodeSubmission:
    """A script that somebody submits, parsed and checked for form."""

    product_id: ProductId
    code: str
    inputs: Mapping[str, str]
    uploads: Sequence[str] = ()
    params_schema: JsonObject = field(default_factory=lambda: dict(NO_PARAMS))
    note: str = ""

    @property
    def code_sha256(self) -> str:
        """The sha-256 (hex) of the script's UTF-8."""
        return hashlib.sha256(self.code.encode()).hexdigest()

    def code_id(self, columns: Mapping[str, str]) -> Hash32:
        """Name the script together with everything an approval of it covers; the same whoever hands it in.

        `columns`: `Asset.columns_sha256` of each asset among the inputs, as it is now.
        """
        covered = [self.product_id, self.code_sha256, dict(self.inputs), sorted(self.uploads), self.params_schema, dict(columns)]
        text = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return Hash32("0x" + hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class CodeDecision:
    """Which approval covers a request; if none does, `code` is the problem's code and `detail` its sentence."""

    code_id: Hash32 | None
    code: str = ""
    detail: str = ""


def find_approval(
    submissions: Sequence[CodeRecord], inputs: Mapping[str, str], uploads: Sequence[str], params: object, columns: Mapping[str, str]
) -> CodeDecision:
    """Find the approval that covers a request.

    `submissions`: every one of this script for this product; `columns`: `Asset.columns_sha256` of each asset among the inputs, now.
    """
    given = [one for one in submissions if dict(one.inputs) == dict(inputs) and sorted(one.uploads) == sorted(uploads)]
    same = [one for one in given if dict(one.columns) == dict(columns)]
    approved = [one for one in same if one.state is CodeState.APPROVED]
    faults = [(one, find_violation(one.params_schema, params)) for one in approved]
    for one, fault in faults:
        if fault is None:
            return CodeDecision(one.code_id)
    if faults:
        return CodeDecision(None, "code-not-approved", f"The script is approved, but not with these params: {faults[0][1]}.")
    rejected = [one for one in same if one.state is CodeState.REJECTED]
    if rejected:
        why = rejected[-1].reason or "no reason given"
        return CodeDecision(None, "code-refused", f"The Earner refused this script: {why}.")
    if same:
        return CodeDecision(
            None, "code-not-approved", "The script waits for the Earner's approval; ask for its state before sending it."
        )
    if any(one.state is CodeState.APPROVED for one in given):
        detail = "The script was approved for other columns: a table changed since, or an older node took the approval. "
        return CodeDecision(
            None, "code-not-approved", detail + "Hand it in again, so that the Earner looks at it with today's columns."
        )
    if any(one.state is CodeState.APPROVED for one in submissions):
        detail = "The script is approved, but for other inputs, variable names or uploads; hand it in again with these."
        return CodeDecision(None, "code-not-approved", detail)
    detail = "This product runs only scripts its Earner approved. Hand yours in first: POST /api/v1/privacy/code."
    return CodeDecision(None, "code-not-approved", detail)
