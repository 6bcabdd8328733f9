"""Scripts the self-test runs inside a real box; each tries to break one promise. Text to the node, never imported by it."""
