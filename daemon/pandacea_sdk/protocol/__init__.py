"""What both sides agree on: request and response shapes, signatures, digests, manifests and receipts. Opens no sockets."""
