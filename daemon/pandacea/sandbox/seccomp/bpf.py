"""Assemble the rules to classic BPF, the form in which the kernel takes a filter (seccomp(2), struct seccomp_data)."""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

from pandacea.errors import Broken
from pandacea.sandbox.seccomp.rules import GROUPS, ArgumentIn, ArgumentWithoutBits, NullPointerBeside, SyscallGroup
from pandacea.sandbox.seccomp.syscalls import SYSCALLS

_ARCHITECTURES: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}  # AUDIT_ARCH_*, in the order of the columns of SYSCALLS
_X32_BIT: Final = 0x4000_0000
_FIRST_UNKNOWN: Final = 463
"""Calls from this number on are newer than the rules: they answer ENOSYS, and libraries fall back."""

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000
_KILL_PROCESS: Final = 0x8000_0000
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def host_architecture() -> str:
    """Return this machine's architecture; raises `Broken` for one whose system-call numbers are not known."""
    name = platform.machine()
    if name not in _ARCHITECTURES:
        raise Broken(f"no system-call list for {name!r}: the sandbox runs on {' and '.join(_ARCHITECTURES)} only")
    return name


def syscall_number(call: str, architecture: str | None = None) -> int | None:
    """Return a call's number on an architecture (default: this machine's); None: the architecture has no such call."""
    return SYSCALLS[call][list(_ARCHITECTURES).index(architecture or host_architecture())]


def assemble_filter(*, boot: bool, architecture: str | None = None) -> bytes:
    """Return an array of struct sock_filter. `boot`: with the calls that only the guest's start needs (the outer program)."""
    architecture = architecture or host_architecture()
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_JUMP_EQUAL, _ARCHITECTURES[architecture], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),  # 32-bit entry: other numbers, other meanings
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_JUMP_GREATER_EQUAL, _X32_BIT, 0, 1),
        _instruction(_RETURN, _KILL_PROCESS),
    ]
    by_call: dict[str, list[SyscallGroup]] = {}
    for group in GROUPS:
        if boot or not group.boot_only:
            for call in group.calls:
                by_call.setdefault(call, []).append(group)
    for call, groups in by_call.items():
        number = syscall_number(call, architecture)
        if number is not None:
            body = b"".join(map(_group_rule, groups)) + _instruction(_RETURN, _ERRNO | groups[0].otherwise)
            program.append(_instruction(_JUMP_EQUAL, number, 0, len(body) // 8))
            program.append(body)
    program.append(_instruction(_JUMP_GREATER_EQUAL, _FIRST_UNKNOWN, 0, 1))
    program.append(_instruction(_RETURN, _ERRNO | errno.ENOSYS))
    program.append(_instruction(_RETURN, _ERRNO | errno.EPERM))
    return b"".join(program)


def _group_rule(group: SyscallGroup) -> bytes:
    """Return instructions that answer with the group's verdict when its condition holds, and else fall through."""
    verdict = _instruction(_RETURN, _ALLOW if group.answer is None else _ERRNO | group.answer)
    condition = group.when
    if condition is None:
        return verdict
    if isinstance(condition, NullPointerBeside):
        null, given = (
            _load_argument(condition.null) + _instruction(_JUMP_EQUAL, 0, 0, 3),
            _load_argument(condition.given) + _instruction(_JUMP_EQUAL, 0, 1, 0),
        )
        return null + given + verdict
    load = _load_argument(condition.index)
    if isinstance(condition, ArgumentWithoutBits):
        return load + _instruction(_JUMP_ANY_BIT, condition.mask, 1, 0) + verdict
    count = len(condition.values)
    tests = b""
    for position, value in enumerate(condition.values):
        left = count - position - 1
        if isinstance(condition, ArgumentIn):
            last = left == 0
            tests += _instruction(_JUMP_EQUAL, value, left, 1 if last else 0)
        else:
            tests += _instruction(_JUMP_EQUAL, value, left + 1, 0)
    return load + tests + verdict


def _load_argument(argument: int) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS_AT + 8 * argument)  # little-endian: the low half comes first
