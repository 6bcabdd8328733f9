"""Parse the fields Signature and Signature-Input of RFC 9421: RFC 8941 structured fields, in their canonical spelling only.

A signature base repeats the parameters as they were serialised. As one spelling is accepted, the received text is that serialisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pandacea_sdk.protocol.problems import ProtocolError

_MEMBER: Final = re.compile(r'([a-z*][a-z0-9_.*-]*)=((?:[^",]|"(?:[^"\\]|\\.)*")*)')
_INTEGER: Final = r"(?:0|[1-9][0-9]{0,14})"
_INPUT: Final = re.compile(r'\(((?:"[a-z0-9@-]+"(?: (?!\))|(?=\))))*)\)((?:;[a-z]+(?:=(?:' + _INTEGER + r'|"[^"\\]*"))?)*)')
_PARAMETER: Final = re.compile(r';([a-z]+)(?:=(?:([0-9]+)|"([^"]*)"))?')


def dictionary_member(field: str, label: str, name: str) -> str:
    """Find the raw value of the one member `label` of a dictionary field (RFC 8941); other members are skipped.

    `name` is the field's, for the message. Takes time linear in the field's length, whatever it holds.

    Raises:
        ProtocolError: `signature-malformed`.
    """
    if "," not in field and field.startswith(f"{label}="):  # one member, as nearly every request has
        return field[len(label) + 1 :].strip(" \t")
    found: list[str] = []
    position = 0
    while position < len(field):
        match = _MEMBER.match(field, position)
        if match is None:
            raise malformed_signature(f"{name} is not a dictionary of signatures (RFC 8941)")
        if match[1] == label:
            found.append(match[2].strip(" \t"))
        position = match.end()
        if position < len(field):
            rest = field[position:].lstrip(" \t")
            if not rest.startswith(",") or not (after := rest[1:].lstrip(" \t")):
                raise malformed_signature(f"{name} is not a dictionary of signatures (RFC 8941)")
            position = len(field) - len(after)
    if len(found) != 1:
        raise malformed_signature(f"{name} needs exactly one member named {label}, it has {len(found)}")
    return found[0]


def parse_signature_input(inner: str) -> tuple[list[str], dict[str, int | str]]:
    """Parse the covered components and the parameters (integers or strings) of one signature.

    Raises:
        ProtocolError: `signature-malformed`, also for a repeated parameter, and for a spelling that is not canonical.
    """
    match = _INPUT.fullmatch(inner)
    if match is None:
        raise malformed_signature(
            'the eth member of Signature-Input must be ("component" ...);created=...;expires=...;nonce="...";keyid="..."'
        )
    parameters: dict[str, int | str] = {}
    for name, number, text in _PARAMETER.findall(match[2]):
        if name in parameters:
            raise malformed_signature(f"the parameter {name} appears twice")
        parameters[name] = int(number) if number else text
    return re.findall(r'"([^"]+)"', match[1]), parameters


def join_names(names: Iterable[str]) -> str:
    """List names for a message, in a stable order."""
    return ", ".join(sorted(names)) or "none"


def malformed_signature(why: str) -> ProtocolError:
    """Make the error `signature-malformed` with this reason."""
    return ProtocolError("signature-malformed", f"The signature cannot be read: {why}.")
