"""What the watchdog did, as one sentence with its evidence for each event."""

from collections.abc import Mapping
from typing import Any


def sentence(kind: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """(severity: info, warning or error; sentence) for an event of the supervisor."""
    match kind:
        case "started":
            return "info", f"{body['process']} started (pid {body['pid']})"
        case "adopted":
            return "info", f"{body['process']} lives already and is adopted (pid {body['pid']})"
        case "fork_server_lost":
            return "info", f"no fork server, so a start takes longer: {body['evidence']}"
        case "working":
            return "info", f"{body['role']} works after {body['after_ms']:.0f} ms"
        case "recovered":
            return "info", (f"{body['role']} works again after {body['after_ms']:.0f} ms, "
                            f"on {body['node']}")
        case "detected":
            return "warning", f"{body['node']} failed: {body['evidence']}; its process is killed"
        case "failed":
            if body["taken_over_by"]:
                then = f"{', '.join(body['taken_over_by'].values())} takes over"
            elif body["restart_in_s"]:
                then = f"restarted in {body['restart_in_s']:.1f} s"
            else:
                then = "restarted now"
            return "warning", f"{body['process']} failed: {body['evidence']}; {then}"
        case "given_up":
            return "error", (f"{body['process']} failed: {body['evidence']}; given up after "
                             f"{body['limit']}")
        case "put_off":
            return "warning", (f"{body['process']}: {body['evidence']}; it is tried again until "
                               "it can")
        case "set_aside":
            return "warning", (f"{body['node']} was deactivated by somebody and is left so; to "
                               f"have it back: brainos restart {body['role']}")
        case "tried_again":
            return "info", f"{body['process']} is tried again: {body['reason']}"
        case "taken_along":
            return "warning", f"{body['process']} restarts because {body['because_of']} failed"
        case "restart":
            return "info", f"{body['role']} is restarted: {body['reason'] or 'no reason given'}"
        case "failover":
            return "info", (f"{body['role']} goes over to {body['to']}: "
                            f"{body['reason'] or 'no reason given'}")
        case "stopped":
            return "info", f"{body['process']} stopped: {body['how']}"
        case "service_level":
            return "info" if body["level"] == "ONLINE" else "warning", (
                f"service level {body['level']}: {body['reason']}")
    return "info", f"{kind}: {dict(body)}"
