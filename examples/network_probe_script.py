"""Try to reach the network from inside the sandbox: every attempt must fail, and its error is printed. Only loopback is tried."""

import json
import socket

attempts = {}
for name, family, address in (
    ("tcp", socket.AF_INET, ("127.0.0.1", int(params["port"]))),
    ("unix", socket.AF_UNIX, "/var/run/docker.sock"),
):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(address)
        attempts[name] = "connected"
    except OSError as problem:
        attempts[name] = type(problem).__name__
try:
    socket.getaddrinfo("example.invalid", 80)
    attempts["dns"] = "resolved"
except OSError as problem:
    attempts["dns"] = type(problem).__name__
print(json.dumps(attempts))
