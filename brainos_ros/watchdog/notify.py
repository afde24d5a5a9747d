"""The notification protocol of systemd (sd_notify(3)), spoken also by `brainos up`."""

import contextlib
import os
import socket

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Tells whoever started this process how it is doing; silent where nobody asked."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None

    def say(self, *lines: str) -> None:
        """Send e.g. `READY=1`, `WATCHDOG=1`, `STATUS=…`; never blocks, never raises."""
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
