"""The graph for tests of a whole brain."""

from graph import graph

__all__ = ["graph"]
