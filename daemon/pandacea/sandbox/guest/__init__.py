"""The only part of pandacea that runs inside a sandbox: the standard library at import, nothing of the node's."""
