"""Measurements of what the engine makes."""

DIS, RAFT_SMALL, RAFT_LARGE = FLOWS = ("dis", "raft-small", "raft-large")
"""How it can be told where things go; flow.py has them."""
