"""Scripts that the self-test runs inside a real sandbox; each tries to break one promise. The node sends their text, never imports them."""
