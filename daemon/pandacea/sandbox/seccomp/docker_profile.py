"""Write the outer program as a container engine takes it (Docker's seccomp profile format)."""

from __future__ import annotations

import json
from typing import Final

from pandacea.sandbox.seccomp.rules import GROUPS, ArgumentIn, ArgumentWithoutBits, NullPointerBeside, SyscallGroup
from pandacea_sdk.protocol.json_types import JsonObject

_ARCHITECTURES: Final = ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]


def docker_profile() -> str:
    """Return the JSON for `--security-opt seccomp=...`: deny by default.

    Conditions that the format cannot express are left to the inner program.
    """
    rules: list[JsonObject] = []
    for group in GROUPS:
        rules.extend(_rules(group))
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "architectures": _ARCHITECTURES, "syscalls": rules})


def _rules(group: SyscallGroup) -> list[JsonObject]:
    if isinstance(group.when, NullPointerBeside):
        return []  # the engine's compiler lets the rule without a condition win; the inner program, installed later, decides
    rule: JsonObject = {"names": list(group.calls), "action": "SCMP_ACT_ALLOW", "comment": f"{group.name}: {group.reason}"}
    if group.answer:
        rule |= {"action": "SCMP_ACT_ERRNO", "errnoRet": group.answer}
    if isinstance(group.when, ArgumentIn):
        values = group.when.values
        return [rule | {"args": [{"index": group.when.index, "value": value, "op": "SCMP_CMP_EQ"}]} for value in values]
    if isinstance(group.when, ArgumentWithoutBits):
        return [rule | {"args": [{"index": group.when.index, "value": group.when.mask, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]
    return [rule]
