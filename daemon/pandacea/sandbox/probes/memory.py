"""Take more memory than the sandbox has; the last line must never be reached."""

import os

print(os.getuid(), flush=True)
hoard: list[bytearray] = []
while len(hoard) < 4096:
    hoard.append(bytearray(b"\1") * (64 << 20))
print("the memory limit does not hold")
