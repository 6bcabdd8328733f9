"""The only code of ours inside a box: standard library at import, nothing of the node's."""
