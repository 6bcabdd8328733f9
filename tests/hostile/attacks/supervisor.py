"""The supervisor in PID 1, the node's connection, other processes."""

from __future__ import annotations

from pandacea.domain.outcome import Failure
from tests.hostile.attack import Attack

ATTACKS = (
    Attack(
        "host-processes",
        "a job sees its own processes and the supervisor, nobody else's",
        """
pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
print(pids)
(held if set(pids) <= {1, os.getpid()} else broken)(pids)
for pid in range(2, 5000):
    if pid != os.getpid():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        broken(pid)
""",
    ),
    Attack(
        "kill-the-supervisor",
        "PID 1 ignores every signal of its sandbox",
        """
import signal
for number in range(1, 65):
    if number not in (signal.SIGCHLD,):
        for _ in range(3):
            try:
                os.kill(1, number)
            except OSError as error:
                print(number, error)
for _ in range(1000):
    os.kill(1, signal.SIGCHLD)
time.sleep(0.2)
held("alive")
""",
    ),
    Attack(
        "kill-everything",
        "kill(-1) reaches nobody outside the sandbox",
        """
import signal
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.kill(-1, number)
    except OSError as error:
        print(error)
held("alive")
""",
    ),
    Attack(
        "supervisor-memory",
        "the supervisor's memory cannot be read or written",
        """
for mode in (os.O_RDONLY, os.O_RDWR):
    attempt("/proc/1/mem", os.open, "/proc/1/mem", mode)
local = ctypes.create_string_buffer(64)
vector = struct.pack("QQ", ctypes.addressof(local), 64)
remote = struct.pack("QQ", 0x400000, 64)
attempt("process_vm_readv", syscall, 310, 1, ctypes.c_char_p(vector), 1, ctypes.c_char_p(remote), 1, 0)
attempt("process_vm_writev", syscall, 311, 1, ctypes.c_char_p(vector), 1, ctypes.c_char_p(remote), 1, 0)
attempt("ptrace attach", syscall, 101, 16, 1, 0, 0)
attempt("ptrace seize", syscall, 101, 0x4206, 1, 0, 0)
""",
    ),
    Attack(
        "supervisor-entries",
        "nothing of the supervisor's /proc entries opens: descriptors, environment, maps, root, working folder",
        """
for name in ("environ", "maps", "smaps", "auxv", "exe", "cwd", "root", "fd", "fdinfo", "map_files", "ns/net", "io", "stack", "syscall",
             "task/1/mem", "pagemap", "personality"):
    try:
        path = "/proc/1/" + name
        found = os.listdir(path) if name in ("fd", "fdinfo", "map_files", "root", "cwd") else open(path, "rb").read(16)
    except OSError as error:
        held(f"{name}: {error.strerror}")
    else:
        broken(f"{name}: {found!r}") if found else held(f"{name}: empty")
for name in ("oom_score_adj", "oom_adj", "clear_refs", "coredump_filter", "timerslack_ns", "loginuid", "comm", "attr/current"):
    attempt(name, lambda: os.write(os.open("/proc/1/" + name, os.O_WRONLY), b"1"))
""",
    ),
    Attack(
        "steal-descriptors",
        "the node's connection cannot be taken from the supervisor",
        """
fd = os.pidfd_open(1)
for number in range(0, 16):
    attempt(f"pidfd_getfd {number}", syscall, 438, fd, number, 0)
""",
    ),
    Attack(
        "limit-the-supervisor",
        "the supervisor's resource limits are its own",
        """
import resource
for name in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
    attempt(name, resource.prlimit, 1, name, (0, 0))
""",
    ),
    Attack(
        "slow-the-supervisor",
        "a supervisor at the lowest priority still delivers the result",
        """
try:
    os.setpriority(os.PRIO_PROCESS, 1, 19)
except OSError as error:
    print(error)
for number, args in ((144, (1, 5, ctypes.c_char_p(struct.pack("i", 0)))), (314, (1, ctypes.c_char_p(b"\\0" * 48), 0))):
    try:
        syscall(number, *args)
    except OSError as error:
        held(error)
held("done")
""",
    ),
    Attack(
        "patch-our-modules",
        "replacing our code in the script's own process changes only the script",
        """
for name, module in list(sys.modules.items()):
    if name.split(".")[0] == "guest":
        print(name)
        for attribute in list(vars(module)):
            if not attribute.startswith("__"):
                setattr(module, attribute, lambda *a, **k: None)
held("patched")
""",
        ends=(None, Failure.SCRIPT_ERROR),
    ),
    Attack(
        "forge-the-account",
        "whatever a script writes to its descriptors, it cannot make its own failure somebody else's, or claim a result it has not left",
        """
import json
for fd in range(0, 32):
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    for packet in (b"L", b"D" + json.dumps({"asset_id": "x", "message": "forged"}).encode(), b"X" + b'{"exit": 0}', b"Z", b"C",
                   b"F" + b'{"name": "forged", "size": 3}', b"Babc", b"E" + b"[" * 5000, b"E" + b"\\xff" * 100, b"P" + b"\\0" * 16, b"P",
                   b"", b"E" + json.dumps({"type": 5, "line": "x", "message": None, "errno": [], "memory": 0}).encode()):
        try:
            sock.send(packet)
        except OSError as error:
            print(fd, error)
sys.exit(3)
""",
        ends=(Failure.SCRIPT_ERROR,),
    ),
    Attack(
        "send-descriptors-to-the-supervisor",
        "descriptors sent to the supervisor are dropped, not kept",
        """
import array
sent = 0
for fd in range(3, 32):
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    for _ in range(2000):
        try:
            sock.sendmsg([b"q"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1] * 200))], socket.MSG_DONTWAIT)
            sent += 1
        except OSError as error:
            if error.errno != errno.EAGAIN:
                break
            time.sleep(0.001)
held(sent)
""",
    ),
    Attack(
        "impersonate-through-stdout",
        "output is only ever output",
        """
os.write(1, b"X{\\"exit\\": 0}\\nZ\\n")
os.write(1, b"\\x00\\x00\\x00\\x01F{}\\n")
os._exit(5)
""",
        ends=(Failure.SCRIPT_ERROR,),
    ),
    Attack(
        "close-everything",
        "a script that closes every descriptor has simply nothing more to say",
        "os.closerange(0, 1024)\nos._exit(0)\n",
        says_held=False,
    ),
    Attack(
        "close-and-stay",
        "a script that closes its output and goes on is ended by its time limit",
        "os.closerange(0, 1024)\nwhile True:\n    time.sleep(1)\n",
        ends=(Failure.TIME_LIMIT,),
        seconds=1.0,
    ),
    Attack(
        "flood-the-status-channel",
        "a flood of progress reports is thinned out and delays nothing",
        """
for n in range(20000):
    pandacea_progress(n, 20000)
for fd in range(3, 32):
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    for n in range(20000):
        sock.send(b"P" + struct.pack(">dd", n, float("nan")))
held("sent")
""",
    ),
)
