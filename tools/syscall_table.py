"""Generate the system-call numbers of the seccomp filter from the kernel's own headers (Debian: linux-libc-dev).

    python tools/syscall_table.py           write daemon/pandacea/sandbox/seccomp/syscalls.py
    python tools/syscall_table.py FOLDER    the same, from the headers beneath FOLDER instead of /usr

A system call keeps its number for ever: a call that is newer than the headers keeps the number that the table has already. A call that
`rules.py` names and that neither the headers nor the table know is an error: run this with newer headers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pandacea.sandbox.seccomp import syscalls
from pandacea.sandbox.seccomp.rules import DENIED, GROUPS

X86_64_HEADERS: Final = ("include/x86_64-linux-gnu/asm/unistd_64.h", "x86_64-linux-gnu/include/asm/unistd_64.h")
"""On Debian: of linux-libc-dev, and of linux-libc-dev-amd64-cross where the machine is another."""
AARCH64_HEADERS: Final = ("include/asm-generic/unistd.h",)
"""aarch64 has the generic table, unchanged."""
_DEFINITION: Final = re.compile(r"^#define __NR(3264)?_(\w+)\s+(?:(\d+)|__NR3264_(\w+))\s*$", re.MULTILINE)
_HEAD: Final = '''\
"""Numbers of the system calls that `rules` names: (x86_64, aarch64); None: the architecture has no such call.

Generated from the kernel's headers by tools/syscall_table.py; do not edit.
"""

from __future__ import annotations

from typing import Final

SYSCALLS: Final[dict[str, tuple[int | None, int | None]]] = {
'''


class UnknownSyscallError(Exception):
    """The rules name a system call of which neither the headers nor the table have a number."""


def find_header(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the first of some headers that is beneath `folder`.

    Raises:
        FileNotFoundError: none of them is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {' and no '.join(names)} in {folder}; run: apt-get install linux-libc-dev")


def read_numbers(header: str) -> dict[str, int]:
    """Return the numbers that the text of a unistd header defines.

    The generic header gives a call that differs between 32 and 64 bits a number `__NR3264_...` and then a name per width, 64 bits first.
    """
    numbers: dict[str, int] = {}
    of_both_widths: dict[str, int] = {}
    named_later: list[tuple[str, str]] = []
    for both, name, number, other in _DEFINITION.findall(header):
        if other:
            named_later.append((name, other))
        else:
            (of_both_widths if both else numbers).setdefault(name, int(number))
    for name, other in named_later:
        if other in of_both_widths:
            numbers.setdefault(name, of_both_widths[other])
    return numbers


def generate_table(x86_64: Mapping[str, int], aarch64: Mapping[str, int]) -> str:
    """Return the text of `syscalls.py`: every call that the rules allow, answer or deny.

    Raises:
        UnknownSyscallError: one of them has no number.
    """
    calls = {call for group in GROUPS for call in group.calls} | {call for purpose in DENIED.values() for call in purpose}
    rows = []
    for call in sorted(calls):
        numbers = (x86_64.get(call), aarch64.get(call))
        if numbers == (None, None):
            numbers = syscalls.SYSCALLS.get(call, numbers)
        if numbers == (None, None):
            raise UnknownSyscallError(f"{call} is in no header and not in the table; run this with a newer kernel's headers")
        rows.append(f'    "{call}": {numbers},\n')
    return f"{_HEAD}{''.join(rows)}}}\n"


def generate_from_headers(folder: Path = Path("/usr")) -> str:
    """Return the text of `syscalls.py` from the headers beneath `folder`.

    Raises:
        FileNotFoundError: a header is not there.
        UnknownSyscallError: as `generate_table`.
    """
    paths = [find_header(folder, names) for names in (X86_64_HEADERS, AARCH64_HEADERS)]
    return generate_table(*(read_numbers(path.read_text(encoding="utf-8")) for path in paths))


def main() -> None:
    """Write the table."""
    Path(syscalls.__file__).write_text(generate_from_headers(*map(Path, sys.argv[1:2])), encoding="utf-8")


if __name__ == "__main__":
    main()
