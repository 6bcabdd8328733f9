"""The system calls that a sandbox may make, group by group, each with its reason. A call that no group names is denied.

Two programs are assembled from this list. The *outer* one is in force from the first instruction of a sandbox and also lets the guest
connect to its socket and drop root. The *inner* one, installed by the guest before any job reaches it, lacks those calls and has every
condition. Filters only add up, so a script runs under both.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ArgumentIn:
    """Holds while the low 32 bits of argument `index` are one of `values`."""

    index: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArgumentNotIn:
    """Holds unless the low 32 bits of argument `index` are one of `values`."""

    index: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArgumentWithoutBits:
    """Holds while argument `index` has no bit of `mask`."""

    index: int
    mask: int


@dataclass(frozen=True, slots=True)
class NullPointerBeside:
    """Holds while argument `null` is a null pointer and argument `given` is not (their low 32 bits)."""

    null: int
    given: int


@dataclass(frozen=True, slots=True)
class SyscallGroup:
    """Calls with one rule. Of groups that share a call, the first whose condition holds decides.

    `answer`: errno that is returned instead of making the call (0: success is reported, nothing is done); None: the call is made.
    `otherwise`: errno when no condition holds. `boot_only`: in the outer program alone.
    """

    name: str
    reason: str
    calls: tuple[str, ...]
    when: ArgumentIn | ArgumentNotIn | ArgumentWithoutBits | NullPointerBeside | None = None
    otherwise: int = errno.EPERM
    answer: int | None = None
    boot_only: bool = False


def _calls(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# include/uapi/linux/{sched,fcntl,prctl}.h and asm-generic/{ioctls,mman-common}.h
_CLONE_NEW_ANY: Final = 0x7E02_0000
_AF_UNIX: Final = 1
_DUP_AND_FLAGS: Final = (0, 1, 2, 3, 4, 1030)
# F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_DUPFD_CLOEXEC
_RECORD_LOCKS: Final = (6, 7, 37, 38)  # F_SETLK F_SETLKW F_OFD_SETLK F_OFD_SETLKW
_TERMINAL_AND_FLAGS: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_PRCTL: Final = (1, 2, 3, 4, 15, 16, 21, 22, 23, 24, 38, 39, 42, 0x53564D41)
# SET_PDEATHSIG GET_PDEATHSIG GET_DUMPABLE SET_DUMPABLE SET_NAME GET_NAME GET_SECCOMP SET_SECCOMP CAPBSET_READ CAPBSET_DROP
# SET_NO_NEW_PRIVS GET_NO_NEW_PRIVS GET_THP_DISABLE SET_VMA
_SEND_BUFFER: Final = (7, 32)  # SO_SNDBUF SO_SNDBUFFORCE (asm-generic/socket.h)
_COLD_PAGEOUT: Final = (20, 21)  # MADV_COLD MADV_PAGEOUT

GROUPS: Final[tuple[SyscallGroup, ...]] = (
    SyscallGroup(
        "files",
        "read the libraries, write the workspace; which paths exist is decided by the mount namespace, not by the filter",
        _calls(
            "read write readv writev pread64 pwrite64 preadv pwritev open openat creat close close_range stat fstat "
            "lstat newfstatat statx access faccessat faccessat2 lseek truncate ftruncate fallocate rename renameat "
            "renameat2 mkdir mkdirat rmdir unlink unlinkat link linkat symlink symlinkat readlink readlinkat chmod "
            "fchmod fchmodat getdents getdents64 getcwd chdir fchdir umask dup dup2 dup3 pipe pipe2 fsync fdatasync "
            "sendfile copy_file_range statfs fstatfs"
        ),
    ),
    SyscallGroup(
        "memory",
        "allocators, mapped tables, compiled kernels",
        _calls("mmap munmap mprotect mremap brk msync mlock munlock mlock2 membarrier get_mempolicy"),
    ),
    SyscallGroup(
        "memory-advice",
        "allocators return pages with it; pushing pages out of the shared cache would signal other jobs",
        _calls("madvise"),
        when=ArgumentNotIn(2, _COLD_PAGEOUT),
    ),
    SyscallGroup(
        "processes",
        "threads, subprocesses and their end, all inside the sandbox's process namespace and under its pids cap",
        _calls(
            "fork vfork execve exit exit_group wait4 waitid kill tkill tgkill getpid getppid gettid getpgid setpgid "
            "getpgrp setsid getsid pidfd_open pidfd_send_signal set_tid_address set_robust_list get_robust_list rseq "
            "futex futex_waitv arch_prctl sched_yield sched_getaffinity sched_setaffinity sched_getparam "
            "sched_getscheduler sched_get_priority_max sched_get_priority_min getpriority setpriority getcpu"
        ),
    ),
    SyscallGroup("clone", "threads and forks, never a new namespace", _calls("clone"), when=ArgumentWithoutBits(0, _CLONE_NEW_ANY)),
    SyscallGroup(
        "prctl",
        "names of threads, death signals, dumpable; nothing that weakens the sandbox",
        _calls("prctl"),
        when=ArgumentIn(0, _PRCTL),
    ),
    SyscallGroup(
        "signals",
        "handlers, masks, timers that raise them",
        _calls(
            "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait sigaltstack alarm "
            "setitimer getitimer pause signalfd signalfd4"
        ),
    ),
    SyscallGroup(
        "time",
        "clocks and sleeping; never setting a clock",
        _calls(
            "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times timer_create timer_settime "
            "timer_gettime timer_delete timer_getoverrun timerfd_create timerfd_settime timerfd_gettime"
        ),
    ),
    SyscallGroup(
        "waiting",
        "event loops",
        _calls(
            "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 "
            "eventfd eventfd2 restart_syscall"
        ),
    ),
    SyscallGroup(
        "facts",
        "who and where the process is; randomness",
        _calls(
            "getuid geteuid getgid getegid getresuid getresgid getgroups capget uname sysinfo getrusage getrlimit "
            "setrlimit getrandom"
        ),
    ),
    SyscallGroup(
        "own-limits",
        "own limits only: PID 1 has the same uid and must not be limited to death",
        _calls("prlimit64"),
        when=ArgumentIn(0, (0,)),
    ),
    SyscallGroup(
        "pairs",
        "event loops wake themselves through a socket pair; a pair reaches nobody else",
        _calls("socketpair"),
        when=ArgumentIn(0, (_AF_UNIX,)),
    ),
    SyscallGroup(
        "pair-traffic",
        "use of such a pair; without socket, connect, bind, listen and accept there is nobody to call",
        _calls("sendto recvfrom sendmsg recvmsg shutdown getsockopt getsockname getpeername"),
    ),
    SyscallGroup(
        "pair-options", "timeouts and the like, of such a pair", _calls("setsockopt"), when=ArgumentNotIn(2, _SEND_BUFFER)
    ),
    SyscallGroup(
        "pair-buffers",
        "how much of the kernel's memory a socket may hold is not the script's to set: success is reported, nothing changes",
        _calls("setsockopt"),
        answer=0,
    ),
    SyscallGroup(
        "descriptor-flags",
        "duplicate and flag descriptors; leases, notifications and pipe sizes reach beyond the sandbox",
        _calls("fcntl"),
        when=ArgumentIn(1, _DUP_AND_FLAGS),
        otherwise=errno.EINVAL,
    ),
    SyscallGroup(
        "record-locks",
        "a lock on a shared file is a channel between jobs: answered with success, nothing is locked",
        _calls("fcntl"),
        when=ArgumentIn(1, _RECORD_LOCKS),
        answer=0,
    ),
    SyscallGroup(
        "whole-file-locks", "the same channel by another name: answered with success, nothing is locked", _calls("flock"), answer=0
    ),
    SyscallGroup(
        "touch-by-name",
        "Path.touch() sets the time by name and makes the file only when that fails: if success were reported, it would make none",
        _calls("utimensat futimesat"),
        when=NullPointerBeside(null=2, given=1),
        answer=errno.EPERM,
    ),
    SyscallGroup(
        "touch-by-name",
        "the same by older calls",
        _calls("utime utimes"),
        when=NullPointerBeside(null=1, given=0),
        answer=errno.EPERM,
    ),
    SyscallGroup(
        "file-times",
        "times of a shared file are a channel too; copying tools only need success to be reported",
        _calls("utimensat utime utimes futimesat"),
        answer=0,
    ),
    SyscallGroup(
        "extended-attributes",
        "a channel and never needed; answered as a file system without them would",
        _calls(
            "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr "
            "lremovexattr fremovexattr"
        ),
        answer=errno.EOPNOTSUPP,
    ),
    SyscallGroup(
        "terminals",
        "is it a terminal, how wide, how much can be read; anything else answers that it is not a terminal",
        _calls("ioctl"),
        when=ArgumentIn(1, _TERMINAL_AND_FLAGS),
        otherwise=errno.ENOTTY,
    ),
    SyscallGroup(
        "newer-forms",
        "libraries try the newer form and fall back when it does not exist; in these forms a filter cannot see the arguments, "
        "or they show what other jobs do (RWF_NOWAIT, cachestat)",
        _calls(
            "clone3 openat2 preadv2 pwritev2 memfd_create pkey_alloc pkey_free pkey_mprotect cachestat fchmodat2 "
            "map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount mseal set_mempolicy_home_node"
        ),
        answer=errno.ENOSYS,
    ),
    SyscallGroup(
        "boot-socket",
        "the guest connects to its node once, before any job reaches it",
        _calls("socket"),
        when=ArgumentIn(0, (_AF_UNIX,)),
        boot_only=True,
    ),
    SyscallGroup("boot-connect", "the same", _calls("connect"), boot_only=True),
    SyscallGroup(
        "boot-identity",
        "where the node runs as root, the guest drops root by itself",
        _calls("setgroups setresuid setresgid capset"),
        boot_only=True,
    ),
)

DENIED: Final[dict[str, tuple[str, ...]]] = {
    "network": _calls("socket connect bind listen accept accept4"),
    "namespaces": _calls("unshare setns mount umount2 pivot_root chroot"),
    "other processes' memory": _calls("ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp userfaultfd"),
    "kernel surface": _calls(
        "bpf perf_event_open io_uring_setup io_uring_enter keyctl add_key request_key init_module finit_module kexec_load"
    ),
    "channels between jobs": _calls("inotify_init inotify_init1 fanotify_init mincore fadvise64 readahead"),
    "identity": _calls("setuid setgid setreuid setregid setresuid setresgid setgroups capset"),
    "devices and handles": _calls("mknod mknodat open_by_handle_at name_to_handle_at iopl ioperm quotactl"),
}
"""Calls that the list leaves out on purpose, by purpose. The self-test tries them; no rule is derived from them."""
