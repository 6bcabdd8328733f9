"""Which system calls a box may make: a readable list, and what the kernel and a container engine are given of it."""
