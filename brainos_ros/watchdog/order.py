"""Who needs whom: start order and the sets a restart strategy touches."""

from collections.abc import Mapping, Sequence

Graph = Mapping[str, Sequence[str]]  # role -> roles it needs


def start_order(graph: Graph) -> list[str]:
    """Roles so that each follows all it needs; otherwise as the file lists them.

    `graph` must be free of cycles, which the robot file's loader guarantees.
    """
    order: list[str] = []

    def visit(role: str) -> None:
        if role not in order:
            for needed in graph[role]:
                visit(needed)
            order.append(role)

    for role in graph:
        visit(role)
    return order


def dependents(graph: Graph, role: str) -> list[str]:
    """Every role that needs `role`, directly or through others, in start order."""
    found = {role}
    order = start_order(graph)
    for other in order:
        if found & set(graph[other]):
            found.add(other)
    return [other for other in order if other in found and other != role]


def affected(graph: Graph, role: str, strategy: str) -> list[str]:
    """The other roles that are taken down and up again with `role`, in start order.

    Strategies as in Erlang/OTP: one_for_one none, rest_for_one those that need it, one_for_all
    all others.
    """
    if strategy == "one_for_one":
        return []
    if strategy == "rest_for_one":
        return dependents(graph, role)
    return [other for other in start_order(graph) if other != role]
