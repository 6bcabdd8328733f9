"""The numbers a filter is assembled from are the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.sandbox.seccomp import syscalls
from pandacea.sandbox.seccomp.bpf import assemble_filter
from pandacea.sandbox.seccomp.rules import DENIED, GROUPS
from pandacea.sandbox.seccomp.syscalls import SYSCALLS
from tests.prerequisites import skip_or_fail
from tools.syscall_table import UnknownSyscallError, generate_from_headers, generate_table, read_numbers

PUBLISHED = {
    "read": (0, 63),
    "openat": (257, 56),
    "open": (2, None),
    "execve": (59, 221),
    "fork": (57, None),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "mmap": (9, 222),
    "newfstatat": (262, 79),
    "fcntl": (72, 25),
    "prctl": (157, 167),
    "clone3": (435, 435),
    "cachestat": (451, 451),
    "fchmodat2": (452, 452),
    "futex_requeue": (456, 456),
    "listmount": (458, 458),
    "mseal": (462, 462),
}
"""From arch/x86/entry/syscalls/syscall_64.tbl and scripts/syscall.tbl of Linux 6.12."""


def test_the_table_is_what_the_headers_yield() -> None:
    """Nobody edited it, and no call of the rules is missing."""
    try:
        made = generate_from_headers()
    except FileNotFoundError as error:
        skip_or_fail(str(error))
    assert Path(syscalls.__file__).read_text(encoding="utf-8") == made


def test_the_table_holds_the_published_numbers() -> None:
    """Also where no header is installed, and of calls that are newer than the installed ones."""
    assert {call: SYSCALLS[call] for call in PUBLISHED} == PUBLISHED


def test_no_two_calls_share_a_number() -> None:
    """On neither architecture: one of them would be judged as the other."""
    for column in (0, 1):
        numbers = [pair[column] for pair in SYSCALLS.values() if pair[column] is not None]
        assert len(set(numbers)) == len(numbers)


def test_a_call_of_the_rules_without_a_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing mistake in the rules must not become a rule that is never applied."""
    calls = {call for group in GROUPS for call in group.calls} | {call for purpose in DENIED.values() for call in purpose}
    assert set(SYSCALLS) == calls
    monkeypatch.delitem(SYSCALLS, "mseal")
    with pytest.raises(UnknownSyscallError, match="mseal"):
        generate_table({}, {})


def test_the_wide_form_of_a_call_is_the_64_bit_one() -> None:
    """The generic header defines both, under a condition."""
    header = (
        "#define __NR3264_lseek 62\n#define __NR_read 63\n#define __NR_lseek __NR3264_lseek\n#define __NR_llseek __NR3264_lseek\n"
    )
    assert read_numbers(header) == {"read": 63, "lseek": 62, "llseek": 62}


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_both_architectures_have_both_programs(architecture: str) -> None:
    """Whole instructions, and fewer of them in the inner program, which lacks the boot calls."""
    outer, inner = (assemble_filter(boot=boot, architecture=architecture) for boot in (True, False))
    assert len(outer) % 8 == len(inner) % 8 == 0
    assert len(inner) < len(outer)
