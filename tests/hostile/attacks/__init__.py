"""Hostile scripts, by what they attack. Each is text: it runs only inside a sandbox."""
