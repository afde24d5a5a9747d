"""One spelling for every action, so that a rule cannot be walked around by another name."""

import re

from brainos_ros.errors import BrainError

_SPELLING = re.compile(r"[A-Za-z_][A-Za-z0-9_.:\-]*(/[A-Za-z_][A-Za-z0-9_.:\-]*)*")
LONGEST = 255
VELOCITY = "cmd_vel"


class Names:
    """Resolves action names as ROS resolves them, then names the gated topics `cmd_vel`.

    `namespace` is the robot's (`/r1` or `/`); `gated` are the resolved names of the topics that
    lead to the wheels, remappings included.
    """

    def __init__(self, namespace: str = "/", gated: tuple[str, ...] = ()) -> None:
        self._prefix = "/" + namespace.strip("/")
        self._gated = {self._relative(_slashes(topic)) for topic in (*gated, VELOCITY)}

    def normalise(self, action: str) -> str:
        """The action's one name. Raises BrainError for what cannot be a name."""
        name = self._relative(_slashes(action))
        if len(action) > LONGEST or not _SPELLING.fullmatch(name):
            raise BrainError(
                f"action {action[:80]!r} is not a name: letters, digits, _ . : - and / only"
            )
        return VELOCITY if name in self._gated else name

    def _relative(self, name: str) -> str:
        if name == self._prefix or not name.startswith("/"):
            return name.strip("/")
        if self._prefix != "/" and name.startswith(self._prefix + "/"):
            name = name[len(self._prefix):]
        return name.strip("/")


def _slashes(name: str) -> str:
    return re.sub(r"/+", "/", name)
