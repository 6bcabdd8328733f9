"""The audit log: rows that are chained by hash, and the check that finds the first one that was changed, cut out, reordered or put back.

    hash of a row = sha-256("pandacea-audit/1" || hash of the row before (32 bytes) || sha-256(entry) (32 bytes))

An entry is RFC 8785 JSON with 16 random bytes in it, so that its digest, which stands for it where others may not read it, tells nothing
about what could be guessed. A manifest names the head of the log when its result was made: a receipt binds the Earner to all rows before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.manifest import canonical_json, hash_manifest
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.receipt import Receipt, parse_receipt

AUDIT_FORMAT: Final = "pandacea-audit/1"
EMPTY_HEAD: Final = "0" * 64
"""The head of a log without rows."""
RUN_ENDED: Final = "run-ended"
"""The event of a run's end: written with the signed result, whose hash it names."""
_UNREADABLE: Final[JsonObject] = {}


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row as it is stored; the hashes are 64 hex digits each."""

    seq: int
    """From 1, without gaps."""
    entry: str
    previous: str
    hash: str

    def members(self) -> JsonObject:
        """Return the members of the entry; empty when it cannot be read."""
        try:
            found = json.loads(self.entry)
        except ValueError:
            return _UNREADABLE
        return found if isinstance(found, dict) else _UNREADABLE


@dataclass(frozen=True, slots=True)
class SignedHead:
    """What a signed result says of the log: its receipt names the result, its manifest the head before the row that records it."""

    source: str
    """Where it comes from, for people."""
    computation_id: str
    result_hash: str
    head: str | None
    """None: of the manifest nothing is known but its hash, or it was signed before the node kept a log."""
    before_log: bool = False
    """The manifest names no head: it was signed by a version of the node that kept no log, so no row records it."""


@dataclass(frozen=True, slots=True)
class AuditFault:
    """The first row at which the log is not what was written."""

    seq: int
    reason: str


def chain_entry(seq: int, previous: str, members: JsonMapping) -> AuditRow:
    """Make the row that follows a row with the hash `previous` (`EMPTY_HEAD`: the first one)."""
    entry = canonical_json({"format": AUDIT_FORMAT, "seq": seq, **members})
    return AuditRow(seq, entry.decode(), previous, hash_row(previous, hashlib.sha256(entry).hexdigest()))


def hash_row(previous: str, entry_sha256: str) -> str:
    """Compute a row's hash from the hash of the row before and the sha-256 of its entry, 64 hex digits each."""
    return hashlib.sha256(AUDIT_FORMAT.encode() + bytes.fromhex(previous) + bytes.fromhex(entry_sha256)).hexdigest()


def read_signed_head(source: str, receipt: Any, manifest: JsonMapping | None) -> tuple[SignedHead, Receipt, str]:
    """Read what a receipt, and the manifest if it is there, say of the log; returns also the receipt and its signer.

    Raises:
        ProtocolError: `bad-receipt`: the receipt is damaged, or the manifest is not the one it names.
    """
    signed, signer = parse_receipt(receipt)
    if manifest is not None and hash_manifest(manifest) != signed.result_hash:
        raise ProtocolError("bad-receipt", f"{source}: the manifest is not the one that the receipt names.")
    head = None if manifest is None else manifest.get("audit_head")
    before_log = manifest is not None and head is None
    return SignedHead(source, signed.computation_id, signed.result_hash, head, before_log), signed, signer


class AuditCheck:
    """Goes through a log row by row, in the order of their numbers, and then holds it against what was signed.

    The chain alone shows rows that were changed, cut out or reordered. A log that was chained anew, cut at its end or put back from earlier
    is shown by what was signed: each result has its row, and that row follows the head which the result's manifest names.
    """

    def __init__(self) -> None:
        """Start before the first row."""
        self.last = AuditRow(0, "", "", EMPTY_HEAD)
        self._heads = {EMPTY_HEAD: 0}
        self._ended: dict[tuple[str, str], AuditRow] = {}

    def add_row(self, row: AuditRow) -> AuditFault | None:
        """Check that a row follows the one before, and is what was written."""
        fault = _find_row_fault(row, self.last)
        if fault is not None:
            return AuditFault(self.last.seq + 1, fault)
        members = row.members()
        if members.get("event") == RUN_ENDED and members.get("result_hash"):
            self._ended[str(members.get("computation_id")), str(members["result_hash"])] = row
        self._heads[row.hash] = row.seq
        self.last = row
        return None

    def compare_signed(self, signed: Iterable[SignedHead]) -> AuditFault | None:
        """Find the first row at which the log contradicts what receipts and manifests say; None: it does not."""
        return min((fault for one in signed if (fault := self._compare(one))), key=lambda fault: fault.seq, default=None)

    def _compare(self, one: SignedHead) -> AuditFault | None:
        row = self._ended.get((one.computation_id, one.result_hash))
        if row is None and one.before_log:
            return None
        if row is None:
            # A head that is not here either is one of rows that were cut, or of a log that goes on after this one.
            where = self.last.seq if one.head is None else self._heads.get(one.head, self.last.seq)
            return AuditFault(
                where + 1,
                f"{one.source} is signed for the result of {one.computation_id}, and no row records it: rows were cut out, or the log is "
                "one from before it",
            )
        if one.head is not None and row.previous != one.head:
            return AuditFault(
                row.seq,
                f"{one.source} is signed for a log whose head was {one.head[:16]}... before the row of {one.computation_id}, and here it "
                f"is {row.previous[:16]}...: rows up to {row.seq} were changed or cut out, and chained anew",
            )
        return None


def find_audit_fault(rows: Iterable[AuditRow], signed: Iterable[SignedHead] = ()) -> AuditFault | None:
    """Find the first row of a log that is not as it was written; None: the log holds (see `AuditCheck`)."""
    check = AuditCheck()
    for row in rows:
        if (fault := check.add_row(row)) is not None:
            return fault
    return check.compare_signed(signed)


def _find_row_fault(row: AuditRow, before: AuditRow) -> str | None:
    expected = before.seq + 1
    if row.seq != expected:
        return f"it is missing: row {row.seq} stands where row {expected} belongs"
    if row.previous != before.hash:
        return f"it does not follow row {before.seq}: it names another row before it"
    try:
        digest = hashlib.sha256(row.entry.encode()).hexdigest()
    except UnicodeEncodeError:
        return "its text is not what was written"
    if row.hash != hash_row(row.previous, digest):
        return "its text or its hash is not what was written"
    members = row.members()
    if members.get("format") != AUDIT_FORMAT or members.get("seq") != row.seq:
        return f"its text is not that of a row {row.seq} of format {AUDIT_FORMAT}"
    return None
