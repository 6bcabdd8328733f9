"""One hostile script and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pandacea.domain.outcome import Failure

PRELUDE = '''
import ctypes, errno, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def held(what):
    print("HELD", what, flush=True)

def broken(what):
    print("BROKEN", what, flush=True)

def attempt(what, call, *args, **named):
    """An attack that succeeds is BROKEN; the kernel's refusal is HELD."""
    try:
        result = call(*args, **named)
    except (OSError, ValueError, OverflowError) as error:
        held(f"{what}: {error}")
        return None
    broken(f"{what}: {result!r}")
    return result

def syscall(number, *args):
    """A system call by number; raises OSError as Python would."""
    ctypes.set_errno(0)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
'''
"""Stands before every script: two words that the suite looks for."""


@dataclass(frozen=True)
class Attack:
    """`ends`: how the run may end (None: by itself). A run that ends by itself must have printed HELD and never BROKEN."""

    name: str
    promise: str
    code: str
    ends: tuple[Failure | None, ...] = (None,)
    says_held: bool = True
    detail: str = ""
    """Must occur in the outcome's detail."""
    limits: dict[str, float] = field(default_factory=dict)
    seconds: float = 20.0
    table: bool = False
    """Whether the run gets a table, as `people`."""
    charged: bool = True
    prelude: bool = True

    def script(self) -> str:
        """Return the script with its prelude, if it has one."""
        return (PRELUDE if self.prelude else "") + self.code
