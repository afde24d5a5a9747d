"""The ledger: what the robot did, provable afterwards. `docs/ledger.md` has format and promise."""

from brainos_ros.ledger.log import Record
from brainos_ros.ledger.proof import heads, prove
from brainos_ros.ledger.recovery import Frozen
from brainos_ros.ledger.stream import Stream
from brainos_ros.ledger.verify import Report, verify

__all__ = ["Frozen", "Record", "Report", "Stream", "heads", "prove", "verify"]
