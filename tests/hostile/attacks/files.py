"""The host's files, the data's descriptors, and channels between jobs through what they share."""

from __future__ import annotations

from tests.hostile.attack import Attack

ATTACKS = (
    Attack(
        "read-only-root",
        "nothing outside the workspace, /tmp and /dev/shm can be written",
        """
for folder in ("/", "/usr", "/usr/lib", "/etc", "/opt", "/opt/pandacea", "/opt/pandacea/env", "/opt/pandacea/guest", "/dev", "/run", "/var",
               "/var/tmp", "/home", "/root", "/srv", "/mnt", "/boot", "/sys", "/run/pandacea", "/run/lock", "/dev/mqueue"):
    attempt(folder, os.open, folder + "/written", os.O_CREAT | os.O_WRONLY)
import site
for folder in sys.path:
    if folder:
        attempt(folder, os.open, folder + "/written.py", os.O_CREAT | os.O_WRONLY)
""",
    ),
    Attack(
        "host-files",
        "the host's accounts, homes and the node's own files are not there",
        """
for path in ("/etc/shadow", "/root/.bashrc", "/root/.ssh", "/home", "/srv", "/var/lib/docker", "/var/log", "/etc/ssh", "/proc/1/root/etc",
             "/etc/hostname.host", "/var/run/secrets", "/opt/pandacea/state"):
    try:
        found = os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
    except OSError as error:
        held(f"{path}: {error.strerror}")
    else:
        (broken if found and path not in ("/var/log", "/etc/ssh") else held)(f"{path}: {found!r}"[:100])
""",
    ),
    Attack(
        "environment",
        "the node's environment is not the job's",
        """
names = set(os.environ)
print(sorted(names))
allowed = {"PATH", "HOME", "LANG", "TZ", "PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
           "ARROW_DEFAULT_MEMORY_POOL", "JE_ARROW_MALLOC_CONF", "HOSTNAME", "LD_LIBRARY_PATH", "PWD", "LC_CTYPE", "USER", "CUDA_MODULE_LOADING",
           "LOGNAME", "TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TRITON_CACHE_DIR", "SKLEARN_CACHE", "GLIBC_TUNABLES",
           "MPLBACKEND", "OMP_THREAD_LIMIT", "FONTCONFIG_FILE", "PYTHONPATH"}
(held if names <= allowed else broken)(sorted(names - allowed))
(held if socket.gethostname() == "sandbox" else broken)(socket.gethostname())
""",
    ),
    Attack(
        "descriptors",
        "a job holds no descriptor but its own three and one to tell its end",
        """
for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink("/proc/self/fd/" + name)
    except OSError:
        continue
    print(name, target)
    expected = target.startswith(("pipe:", "socket:", "/dev/null", "/proc/")) or target.endswith("/fd")
    (held if expected else broken)(f"{name} {target}")
(held if people.shape == (300, 3) else broken)("the table is there without its descriptor")
""",
        table=True,
    ),
    Attack(
        "write-to-the-data",
        "through no road does a script's change reach the Earner's file",
        """
import mmap
for line in open("/proc/self/maps"):
    path = line.split(maxsplit=5)[5].strip() if len(line.split(maxsplit=5)) == 6 else ""
    if path == "/" or path.endswith((".arrow", ".csv")):
        print(line.strip())
        (held if "p" in line.split()[1] else broken)("private mapping")
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        attempt("map_files", os.open, f"/proc/self/map_files/{line.split()[0]}", os.O_RDWR)
        attempt("remap shared", syscall, 216, start, 4096, 0, 0, 0)
        ctypes.memset(start + (end - start) // 2, 0x41, 64)
        try:
            syscall(26, start, end - start, 4)  # msync(MS_SYNC) writes nothing of a private mapping
        except OSError as error:
            print(error)
people.loc[0, "age"] = 999
held("changed a copy")
""",
        table=True,
    ),
    Attack(
        "execute-from-the-workspace",
        "no file a job can write can be executed or mapped executable",
        """
import mmap, shutil
for folder in ("/workspace", "/tmp", "/dev/shm"):
    shutil.copyfile("/bin/true", folder + "/true")
    os.chmod(folder + "/true", 0o755)
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(folder + "/true", ["true"])
        except OSError:
            os._exit(77)
    (held if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77 else broken)(folder)
    fd = os.open(folder + "/true", os.O_RDONLY)
    attempt("map executable", mmap.mmap, fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    os.unlink(folder + "/true")
attempt("memfd_create", os.memfd_create, "x")
""",
    ),
    Attack(
        "channels",
        "what tells or marks what another job does with a shared file is denied or does nothing",
        """
path = sys.executable if os.path.exists(sys.executable) else "/bin/sh"
fd = os.open(path, os.O_RDONLY)
for name, number, args in (("inotify_init1", 294, (0,)), ("inotify_init", 253, ()), ("fanotify_init", 300, (0, 0)), ("mincore", 27, (0, 4096, 0)),
        ("fadvise64", 221, (fd, 0, 4096, 4)), ("readahead", 187, (fd, 0, 4096)), ("cachestat", 451, (fd, 0, 0, 0)),
        ("preadv2", 327, (fd, 0, 0, 0, 0, 8)), ("fsetxattr", 190, (fd, 0, 0, 0, 0)), ("fgetxattr", 193, (fd, 0, 0, 0))):
    attempt(name, syscall, number, *args)
import fcntl
for command in (1024, 1025, 1026, 1031, 5, 8, 10):
    attempt(f"fcntl {command}", syscall, 72, fd, command, 0)
attempt("madvise pageout", syscall, 28, 0, 0, 21)
""",
    ),
    Attack(
        "locks-are-no-channel",
        "a lock is answered with success and nobody else sees it",
        """
import fcntl
path = "/opt/pandacea/guest/inner.bpf" if os.access("/opt/pandacea/guest/inner.bpf", os.R_OK) else "/bin/sh"
first, second = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
try:
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    broken(f"a real lock was taken: {error}")
else:
    held("flock does nothing")
try:
    (broken if open("/proc/locks").read() else held)("nobody's locks are told")
except OSError as error:
    held(error)
""",
    ),
    Attack(
        "times-are-no-channel",
        "no call changes a file's times, neither its own nor a shared one's, not even those of a device that everybody may write to",
        """
open("mine", "w").close()
for path in ("mine", "/opt/pandacea/guest/inner.bpf", "/dev/null"):
    before = os.stat(path)
    for times in ((1, 1), None):
        for target in (path, os.open(path, os.O_RDONLY)):
            try:
                os.utime(target, times)
            except OSError as error:
                held(error)
    for number, times in ((132, 0), (235, 0), (132, ctypes.create_string_buffer(16))):
        try:
            syscall(number, ctypes.c_char_p(path.encode()), times)
        except OSError as error:
            held(error)
    after = os.stat(path)
    same = (before.st_mtime_ns, before.st_atime_ns) == (after.st_mtime_ns, after.st_atime_ns)
    (held if same else broken)(f"{path}: {before} {after}")
os.unlink("mine")
path = "/opt/pandacea/guest/inner.bpf"
attempt("chmod of a shared file", os.chmod, path, 0o777)
attempt("truncate of a shared file", os.truncate, path, 0)
""",
    ),
    Attack(
        "access-times",
        "reading a table again leaves no time behind that the next job could see",
        """
for descriptor in pandacea_descriptors.values():  # syft
    before = os.fstat(descriptor).st_atime_ns
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:
        print(len(file.read()))
    (held if os.fstat(descriptor).st_atime_ns == before else broken)((before, os.fstat(descriptor).st_atime_ns))
    attempt("reopen for writing", os.open, f"/proc/self/fd/{descriptor}", os.O_RDWR)
""",
        table=True,
    ),
    Attack(
        "pipe-size",
        "no call tells how many pages a pipe got of its user's budget",
        """
import fcntl
for end in os.pipe():
    attempt("F_GETPIPE_SZ", fcntl.fcntl, end, 1032)
""",
    ),
    Attack(
        "pipe-buffers",
        "the per-user pipe budget, which sandboxes share, cannot be claimed by one",
        """
import fcntl
grown = 0
pipes = []
for _ in range(200):
    try:
        pipes.append(os.pipe())
        fcntl.fcntl(pipes[-1][1], 1031, 1 << 20)
        grown += 1
    except OSError:
        pass
(held if grown == 0 else broken)(grown)
""",
    ),
)
