"""The graph for tests of nodes."""

from graph import graph

__all__ = ["graph"]
