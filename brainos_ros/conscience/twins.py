"""Who else publishes on the gated topic: nobody may.

A publisher under another name is foreign at once. One under the gate's own name is either a
second gate, or the ghost of one that was killed, which the graph shows for another 20 s. A ghost
says nothing: more commands heard than sent means a second gate.
"""

from collections.abc import Sequence

LISTEN_S = 1.0
SPARE = 2


class Twins:
    """Decides from the graph and from what is heard on the topic. `own` is the gate's full name."""

    def __init__(self, own: str, topic: str) -> None:
        self._own, self._topic = own, topic
        self._sent = self._heard = self._sent_before = 0
        self._since = 0.0
        self.listening = False
        self.problem = ""

    def sent(self) -> None:
        """The gate published a command."""
        self._sent += 1

    def heard(self) -> None:
        """A command arrived on the topic."""
        if self._heard == 0:
            self._sent_before = self._sent - 1
        self._heard += 1

    def publishers(self, now: float, names: Sequence[str]) -> None:
        """The full names of all nodes that publish on the topic, one for each publisher."""
        foreign = sorted({name for name in names if name != self._own})
        if len(names) > 1 and not self.listening:
            self.listening, self._since, self._heard = True, now, 0
        elif len(names) <= 1:
            self.listening = False
        if foreign:
            self.problem = f"{self._topic} is also published by {', '.join(foreign)}"
        elif not self.listening:
            self.problem = ""
        elif self._heard - (self._sent - self._sent_before) > SPARE:
            self.problem = f"another gate publishes on {self._topic}"
        elif self.problem == "" and now == self._since:
            self.problem = f"listening for another gate on {self._topic}"
        elif self.problem.startswith("listening") and now - self._since >= LISTEN_S:
            self.problem = ""
