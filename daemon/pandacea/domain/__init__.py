"""The law of the node: pure functions and frozen values, standard library only."""
