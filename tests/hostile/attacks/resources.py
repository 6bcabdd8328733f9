"""Memory, processes, disk and time, by many roads."""

from __future__ import annotations

from pandacea.domain.outcome import Failure
from tests.hostile.attack import Attack

_MEMORY = (Failure.MEMORY_LIMIT,)
_DISK = (Failure.DISK_LIMIT,)
_PROCESSES = (Failure.PROCESS_LIMIT, Failure.SCRIPT_ERROR)

ATTACKS = (
    Attack(
        "memory-heap",
        "a growing heap ends at the memory limit",
        "hoard = []\nwhile True: hoard.append(bytearray(10_000_000))\n",
        _MEMORY,
    ),
    Attack(
        "memory-mmap",
        "anonymous pages end there too",
        "import mmap\nhoard = []\nwhile True:\n    page = mmap.mmap(-1, 1 << 24)\n    page.write(b'x' * (1 << 24))\n    hoard.append(page)\n",
        _MEMORY,
    ),
    Attack(
        "memory-one-allocation",
        "one absurd allocation is refused or ended",
        "import numpy\na = numpy.ones(1 << 37)\n",
        (*_MEMORY, Failure.SCRIPT_ERROR),
    ),
    Attack(
        "memory-children",
        "memory is the sandbox's, not a process's: the sum over children counts",
        """
for _ in range(20):
    if os.fork() == 0:
        hoard = bytearray(os.urandom(1 << 16) * 1024)
        time.sleep(30)
        os._exit(0)
time.sleep(30)
""",
        _MEMORY,
    ),
    Attack(
        "memory-child-dies-parent-stays",
        "when the kernel kills one process of the sandbox for memory, the whole run ends",
        """
while True:
    pid = os.fork()
    if pid == 0:
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 16)) * 64)
    os.waitpid(pid, 0)
""",
        _MEMORY,
    ),
    Attack(
        "memory-through-files",
        "files in the workspace, /tmp and /dev/shm count as memory",
        """
chunk = os.urandom(1 << 20)
hoard = []
for path in ("/workspace/a", "/tmp/a", "/dev/shm/a"):
    with open(path, "wb") as file:
        try:
            while True:
                file.write(chunk)
                file.flush()
        except OSError as error:
            print(path, error, flush=True)
while True:
    hoard.append(bytearray(chunk) * 4)
""",
        (*_MEMORY, *_DISK),
    ),
    Attack(
        "memory-filled-then-success",
        "a run within its caps that fills its disk and ends well is a success, whatever its supervisor still has to do",
        """
chunk = os.urandom(1 << 20)
for path in ("/workspace/a", "/tmp/a", "/dev/shm/a"):
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(chunk)
        except OSError as error:
            print(path, error, flush=True)
held("full")
""",
        (None,),
    ),
    Attack(
        "memory-kernel",
        "kernel objects a job makes are bounded by its descriptors and its memory",
        """
hoard = []
try:
    while True:
        hoard.append(socket.socketpair())
        hoard[-1][0].setblocking(False)
        hoard[-1][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            while True:
                hoard[-1][0].send(b"x" * 65536)
        except BlockingIOError:
            pass
except OSError as error:
    held(error)
""",
        (None, *_MEMORY),
        says_held=False,
    ),
    Attack(
        "memory-send-buffers",
        "a socket cannot be told to hold more than the machine gives to each",
        """
for end in socket.socketpair():
    before = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    for option in (socket.SO_SNDBUF, 32):
        try:
            end.setsockopt(socket.SOL_SOCKET, option, 1 << 26)
        except OSError as error:
            held(error)
    (held if end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before else broken)(before)
""",
    ),
    Attack(
        "memory-page-tables",
        "touching one byte a page over a huge mapping ends at the limit",
        "import mmap\npage = mmap.mmap(-1, 1 << 36)\nfor at in range(0, 1 << 36, 4096): page[at] = 1\n",
        (*_MEMORY, Failure.SCRIPT_ERROR),
    ),
    Attack("recursion", "endless recursion ends in Python or at the stack", "def f(): f()\nf()\n", (Failure.SCRIPT_ERROR,)),
    Attack(
        "stack-overflow",
        "a native stack overflow ends the script, not the sandbox",
        "import threading\nsys.setrecursionlimit(1 << 30)\ndef f(*a): return f(*a, 1)\nf()\n",
        (Failure.SCRIPT_ERROR, *_MEMORY),
    ),
    Attack(
        "fork-bomb",
        "a fork bomb fills its own sandbox only and is ended",
        "while True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)\n",
        (Failure.TIME_LIMIT, *_MEMORY),
        seconds=2.0,
    ),
    Attack(
        "fork-limit",
        "more processes than the cap raise in the script",
        "while os.fork() >= 0:\n    time.sleep(5) if False else None\n",
        (*_PROCESSES, Failure.TIME_LIMIT, *_MEMORY),
        seconds=3.0,
    ),
    Attack(
        "thread-bomb",
        "threads count as processes",
        "import threading\nwhile True: threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\n",
        _PROCESSES,
    ),
    Attack(
        "daemonised-survivor",
        "a process that leaves its session and outlives the script is gone before anything is collected",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            with open("/workspace/late", "a") as file:
                file.write("x")
            os.write(1, b"")
            time.sleep(0.001)
    os._exit(0)
time.sleep(0.1)
held("left one behind")
""",
    ),
    Attack(
        "ignored-signals",
        "a script that ignores every signal is ended at its time limit all the same",
        """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
""",
        (Failure.TIME_LIMIT,),
        seconds=1.0,
    ),
    Attack(
        "stopped",
        "a script that stops itself does not stop the clock",
        "import signal\nos.kill(os.getpid(), signal.SIGSTOP)\n",
        (Failure.TIME_LIMIT,),
        seconds=1.0,
    ),
    Attack("native-loop", "a loop in native code is ended too", "sum(range(10 ** 12))\n", (Failure.TIME_LIMIT,), seconds=1.0),
    Attack(
        "regex-bomb",
        "so is a regular expression",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')\n",
        (Failure.TIME_LIMIT,),
        seconds=1.0,
    ),
    Attack(
        "endless-exit",
        "an atexit hook cannot outstay the time limit",
        "import atexit\natexit.register(time.sleep, 60)\n",
        (Failure.TIME_LIMIT,),
        seconds=1.0,
    ),
    Attack(
        "endless-thread",
        "a thread left running cannot either",
        "import threading\nthreading.Thread(target=time.sleep, args=(60,)).start()\n",
        (Failure.TIME_LIMIT,),
        seconds=1.0,
    ),
    Attack(
        "disk-full",
        "the workspace ends at its size",
        "with open('big', 'wb') as file:\n    while True: file.write(b'x' * 1_000_000)\n",
        _DISK,
    ),
    Attack("disk-many-files", "and at its number of files", "for n in range(1_000_000): open(f'{n}', 'w').close()\n", _DISK),
    Attack(
        "disk-tmp",
        "/tmp has a size of its own",
        "with open('/tmp/big', 'wb') as file:\n    while True: file.write(b'x' * 1_000_000)\n",
        _DISK,
    ),
    Attack(
        "disk-one-huge-file",
        "a file of a terabyte of nothing cannot be made",
        "with open('sparse', 'wb') as file: file.truncate(1 << 40)\n",
        _DISK,
    ),
    Attack(
        "disk-shared-memory",
        "/dev/shm is small",
        "with open('/dev/shm/big', 'wb') as file:\n    while True: file.write(b'x' * 1_000_000)\n",
        (*_DISK, Failure.SCRIPT_ERROR),
    ),
    Attack(
        "zombies",
        "processes that end unreaped are reaped by PID 1",
        "for _ in range(100):\n    if os.fork() == 0:\n        if os.fork() == 0:\n            os._exit(0)\n        os._exit(0)\n    os.wait()\nheld('reaped')\n",
        (None,),
    ),
    Attack(
        "segfault", "a crash in native code is the script's", "ctypes.string_at(0)\n", (Failure.SCRIPT_ERROR,), detail="SIGSEGV"
    ),
    Attack("abort", "so is an abort", "libc.abort()\n", (Failure.SCRIPT_ERROR,), detail="SIGABRT"),
    Attack(
        "core-dump",
        "a crash leaves no core file",
        "pid = os.fork()\nif pid == 0: libc.abort()\nprint(os.waitpid(pid, 0))\n(held if os.listdir('/workspace') == [] else broken)(os.listdir('/workspace'))\n",
        (None,),
    ),
)
