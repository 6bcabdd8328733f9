"""The published language of a lease: wire shapes, signing and digests. No sockets, shared by both sides."""
