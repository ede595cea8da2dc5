"""Load generators of our own, for what no tool measures; each runs as a process of its own."""
