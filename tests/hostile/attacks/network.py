"""Reaching anything outside the sandbox."""

from __future__ import annotations

from tests.hostile.attack import Attack

ATTACKS = (
    Attack("tcp-ipv4", "no IPv4 stream socket can be made", "attempt('socket', socket.socket, socket.AF_INET, socket.SOCK_STREAM)"),
    Attack(
        "tcp-ipv6", "no IPv6 stream socket can be made", "attempt('socket', socket.socket, socket.AF_INET6, socket.SOCK_STREAM)"
    ),
    Attack("udp-dns", "no datagram can ask a name server", "attempt('socket', socket.socket, socket.AF_INET, socket.SOCK_DGRAM)"),
    Attack("raw-ip", "no raw socket", "attempt('socket', socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)"),
    Attack("packet", "no link-layer socket", "attempt('socket', socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3)"),
    Attack("netlink", "no netlink socket", "attempt('socket', socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
    Attack("vsock", "no socket to the hypervisor", "attempt('socket', socket.socket, socket.AF_VSOCK, socket.SOCK_STREAM)"),
    Attack("alg", "no kernel crypto socket", "attempt('socket', socket.socket, socket.AF_ALG, socket.SOCK_SEQPACKET)"),
    Attack(
        "every-family",
        "none of the kernel's address families gives a socket of any type",
        """
for family in range(0, 64):
    for kind in (1, 2, 3, 5):
        try:
            syscall(41, family, kind, 0)
        except OSError:
            continue
        broken(f"family {family} type {kind}")
held("all families")
""",
    ),
    Attack(
        "unix-abstract",
        "no abstract unix socket can be dialled",
        "attempt('socket', socket.socket, socket.AF_UNIX, socket.SOCK_STREAM)",
    ),
    Attack(
        "engine-socket",
        "the container engine's socket is not there",
        """
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"):
    (broken if os.path.exists(path) else held)(path)
""",
    ),
    Attack(
        "guest-socket-redial",
        "a job cannot dial the guest's socket again and pose as an idle guest",
        """
for path in ("/run/pandacea/guest", "/run/pandacea"):
    print(path, os.path.exists(path), os.access(path, os.R_OK))
if os.path.exists("/run/pandacea/guest"):
    broken("the listener's name is still there")
for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
    attempt("socket", socket.socket, socket.AF_UNIX, kind)
a, b = socket.socketpair()
attempt("connect an existing socket", a.connect, "/run/pandacea/guest")
""",
    ),
    Attack(
        "pair-as-listener",
        "a socket pair cannot be bound, listened on or accepted from",
        """
a, b = socket.socketpair()
attempt("bind", a.bind, "/tmp/s")
attempt("bind abstract", a.bind, "\\0x")
attempt("listen", a.listen, 1)
attempt("accept", a.accept)
attempt("pair of another family", socket.socketpair, socket.AF_INET, socket.SOCK_STREAM)
""",
    ),
    Attack(
        "http-library",
        "a library finds no network either",
        """
import urllib.request
for url in ("http://127.0.0.1:8080/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/"):
    attempt(url, urllib.request.urlopen, url, timeout=2)
""",
    ),
    Attack("resolver", "no name resolves", "attempt('getaddrinfo', socket.getaddrinfo, 'example.invalid', 80)"),
    Attack(
        "interfaces",
        "the sandbox's network namespace has no interface but a loopback that is down",
        """
names = [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]
print(names)
(held if names in ([], ["lo"]) or set(names) <= {"lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0"}
 else broken)(names)
routes = open("/proc/net/route").read().splitlines()[1:]
(held if not routes else broken)(routes)
""",
    ),
    Attack(
        "other-namespaces",
        "the host's namespaces cannot be entered through /proc",
        """
for pid in (1, os.getpid()):
    for kind in ("net", "mnt", "pid", "ipc", "uts", "user", "cgroup"):
        try:
            fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        except OSError as error:
            held(error)
            continue
        try:
            syscall(308, fd, 0)
        except OSError as error:
            held(error)
        else:
            broken(f"setns {kind}")
""",
    ),
)
