"""Which system calls a sandbox may make: one readable list, and the forms that the kernel and a container engine take."""
