"""The kernel's wider surface: namespaces, identity, devices, rarely used system calls, other calling conventions."""

from __future__ import annotations

from tests.hostile.attack import Attack

ATTACKS = (
    Attack(
        "unshare",
        "no new namespace of any kind",
        """
for name, flag in dict(user=0x10000000, net=0x40000000, pid=0x20000000, mnt=0x20000, ipc=0x8000000, uts=0x4000000, cgroup=0x2000000).items():
    attempt(name, syscall, 272, flag)
""",
    ),
    Attack(
        "clone-namespaces",
        "clone and clone3 give no namespace either",
        """
for flag in (0x10000000, 0x40000000, 0x20000000, 0x20000):
    try:
        pid = syscall(56, flag | 17, 0, 0, 0, 0)
    except OSError as error:
        held(error)
    else:
        if pid == 0:
            os._exit(0)
        broken(f"clone {flag:#x}")
args = struct.pack("8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0)
attempt("clone3", syscall, 435, ctypes.c_char_p(args), 64)
""",
    ),
    Attack(
        "mounts",
        "no mount, unmount, pivot_root or chroot, by old calls or new",
        """
attempt("mount", syscall, 165, ctypes.c_char_p(b"none"), ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"tmpfs"), 0, 0)
attempt("remount", syscall, 165, ctypes.c_char_p(b"none"), ctypes.c_char_p(b"/"), 0, 32, 0)
attempt("umount", syscall, 166, ctypes.c_char_p(b"/proc"), 2)
attempt("pivot_root", syscall, 155, ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"/tmp"))
attempt("chroot", os.chroot, "/tmp")
attempt("open_tree", syscall, 428, -100, ctypes.c_char_p(b"/"), 1)
attempt("fsopen", syscall, 430, ctypes.c_char_p(b"tmpfs"), 0)
attempt("move_mount", syscall, 429, -100, ctypes.c_char_p(b"/"), -100, ctypes.c_char_p(b"/tmp"), 0)
""",
    ),
    Attack(
        "become-root",
        "no call changes the user or group",
        """
for number in (105, 106, 113, 114, 117, 119, 116, 122, 123):
    attempt(number, syscall, number, 0, 0, 0)
own = os.getuid()
(held if own >= 10001 and set(os.getresuid()) == set(os.getresgid()) == {own} else broken)((os.getresuid(), os.getresgid()))
""",
    ),
    Attack(
        "set-uid-programs",
        "running a set-uid program changes nothing",
        """
import subprocess
found = []
for folder in ("/bin", "/usr/bin", "/usr/sbin", "/sbin"):
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        try:
            if os.stat(path).st_mode & 0o6000:
                found.append(path)
        except OSError:
            pass
print(found)
held("looked")
for path in found:
    done = subprocess.run([path, "-c", "id"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5)
    (broken if "uid=0" in done.stdout else held)(path)
""",
    ),
    Attack(
        "capabilities",
        "every capability set is empty and none can be gained",
        """
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if line.startswith(("Cap", "NoNew", "Seccomp:")))
print(status)
for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
    (held if int(status[name], 16) == 0 else broken)(name)
(held if status["NoNewPrivs"] == "1" and status["Seccomp"] == "2" else broken)(status)
attempt("capset", syscall, 126, ctypes.c_char_p(struct.pack("II", 0x20080522, 0)), ctypes.c_char_p(b"\\xff" * 24))
attempt("ambient", syscall, 157, 47, 2, 21, 0, 0)
""",
    ),
    Attack(
        "devices",
        "no device of the host is there, and none can be made",
        """
for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/nvme0", "/dev/fuse", "/dev/kvm",
             "/dev/net/tun", "/dev/snapshot", "/dev/uinput", "/dev/loop0", "/dev/loop-control", "/dev/mapper/control", "/dev/vhost-vsock"):
    attempt(path, os.open, path, os.O_RDONLY)
attempt("mknod char", os.mknod, "/tmp/null", 0o600 | 0o020000, os.makedev(1, 1))
attempt("mknod block", os.mknod, "/tmp/disk", 0o600 | 0o060000, os.makedev(254, 0))
""",
    ),
    Attack(
        "keyrings",
        "the kernel's keyrings, which namespaces do not separate, are out of reach",
        """
attempt("add_key", syscall, 248, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), ctypes.c_char_p(b"y"), 1, -4)
attempt("request_key", syscall, 249, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), 0, -4)
attempt("keyctl", syscall, 250, 0, -3, 1)
""",
    ),
    Attack(
        "rare-calls",
        "bpf, perf, userfaultfd, io_uring, aio, kexec, modules, reboot, accounting and their like are denied",
        """
for name, number in dict(bpf=321, perf=298, userfaultfd=323, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, io_setup=206,
        kexec=246, kexec_file=320, init_module=175, finit_module=313, delete_module=176, reboot=169, acct=163, swapon=167, quotactl=179,
        syslog=103, lookup_dcookie=212, iopl=172, ioperm=173, modify_ldt=154, personality=135, vhangup=153, settimeofday=164,
        clock_settime=227, adjtimex=159, sethostname=170, nfsservctl=180, migrate_pages=256, move_pages=279, mbind=237, vmsplice=278,
        name_to_handle_at=303, open_by_handle_at=304, kcmp=312, remap_file_pages=216, memfd_secret=447, landlock=444, seccomp=317,
        mq_open=240, shmget=29, semget=64, msgget=68, process_madvise=440, pidfd_getfd=438, ptrace=101).items():
    attempt(name, syscall, number, 0, 0, 0, 0, 0)
""",
    ),
    Attack(
        "unknown-calls",
        "calls newer than the list do not exist",
        """
for number in range(463, 600):
    try:
        syscall(number, 0, 0, 0, 0, 0, 0)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            broken(f"{number}: {error}")
    else:
        broken(number)
held("all")
""",
    ),
    Attack(
        "other-calling-conventions",
        "the 32-bit and x32 doors, where numbers mean other calls, end the process that knocks",
        """
import mmap
def machine_code(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page))), page
int80 = bytes.fromhex("b8660100006a015b31c9cd80c3")  # mov eax, 0x166 (socket is 359); int 0x80
x32 = bytes.fromhex("b829000040bf02000000be0100000031d20f05c3")  # mov eax, 0x40000029 (socket); syscall
for name, code in dict(int80=int80, x32=x32).items():
    pid = os.fork()
    if pid == 0:
        function, page = machine_code(code)
        function()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    (held if os.WIFSIGNALED(status) else broken)(f"{name}: {status:#x}")
""",
    ),
    Attack(
        "kernel-switches",
        "nothing under /proc/sys, /sys or sysrq can be written",
        """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
             "/proc/sys/kernel/randomize_va_space", "/proc/sys/net/ipv4/ip_forward", "/sys/kernel/uevent_helper", "/sys/power/state",
             "/proc/irq/0/smp_affinity", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cgroup.procs"):
    attempt(path, os.open, path, os.O_WRONLY)
""",
    ),
    Attack(
        "kernel-secrets",
        "kernel memory, keys, logs and symbol addresses cannot be read",
        """
for path in ("/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/vmallocinfo", "/proc/slabinfo"):
    try:
        data = open(path, "rb").read(64)
    except OSError as error:
        held(error)
    else:
        (broken if data else held)(path)
try:
    lines = open("/proc/kallsyms").read(4096).splitlines()
except OSError as error:
    held(error)
else:
    (held if all(int(line.split()[0], 16) == 0 for line in lines[:-1]) else broken)("kallsyms")
""",
    ),
    Attack(
        "machine-counters",
        "nothing that counts the whole machine is told, so that no sandbox sees what another does",
        """
for path in ("/proc/pressure", "/proc/interrupts", "/proc/vmstat", "/proc/diskstats", "/proc/locks", "/proc/softirqs", "/proc/zoneinfo",
             "/proc/sys/fs/file-nr", "/proc/sys/kernel/pty/nr", "/proc/sys/kernel/random/boot_id", "/proc/swaps", "/proc/cmdline",
             "/sys/block", "/sys/class", "/sys/devices/system/node/node0/vmstat"):
    try:
        found = os.listdir(path) if os.path.isdir(path) else open(path).read()
    except OSError as error:
        held(f"{path}: {error.strerror}")
    else:
        (broken if found else held)(f"{path}: {found!r}"[:200])
names = ("stat", "loadavg", "uptime", "meminfo", "cpuinfo")
before = [open(f"/proc/{name}").read() for name in names]
end = time.monotonic() + 0.5
while time.monotonic() < end:
    pass
after = [open(f"/proc/{name}").read() for name in names]
for name, one, other in zip(names, before, after):
    (held if one and one == other else broken)(f"{name} says something, and the same after half a second of work")
""",
    ),
    Attack(
        "mount-table",
        "the mount table and the list of mappings name no file of the Earner's, and a table's descriptor no place",
        """
text = open("/proc/self/mountinfo").read() + open("/proc/self/maps").read()
(broken if "people" in text else held)([line for line in text.splitlines() if "people" in line])
for descriptor in pandacea_descriptors.values():  # syft
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    (held if path == "/" else broken)(path)
""",
        table=True,
    ),
    Attack(
        "control-groups",
        "the sandbox's own limits cannot be lifted",
        """
for root, folders, files in os.walk("/sys/fs/cgroup"):
    for name in files:
        if name.startswith(("memory.", "pids.", "cpu.", "cgroup.")):
            try:
                os.open(os.path.join(root, name), os.O_WRONLY)
            except OSError:
                continue
            broken(os.path.join(root, name))
held("walked")
import resource
for name in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
    attempt(name, resource.setrlimit, name, (1 << 40, 1 << 40))
""",
    ),
    Attack(
        "terminal-injection",
        "no byte can be pushed into a terminal",
        """
for fd in (0, 1, 2):
    for request in (0x5412, 0x541C, 0x5423, 0x4B4E):
        attempt(hex(request), syscall, 16, fd, request, ctypes.c_char_p(b"x"))
attempt("/dev/tty", os.open, "/dev/tty", os.O_RDWR)
""",
    ),
)
