"""Run for ever and ignore every signal."""

import os
import signal

print(os.getuid(), flush=True)
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        continue
while True:
    pass
