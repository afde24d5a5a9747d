"""Between the genome room's records and messages."""

from typing import Any

from brainos_msgs import msg

from brainos_ros.genome_sync.lineage import Entry
from brainos_ros.genome_sync.packet import Packet, Request
from brainos_ros.ros.conversions import ns_to_time, time_to_ns

TIMES = ("evolved_since", "since")
BYTES = ("payload", "mac", "signature")


def generation_to(entry: Entry, active: bool, barred: bool) -> msg.GenomeGeneration:
    """An entry of the history as a message."""
    return msg.GenomeGeneration(
        genome_hash=entry.genome_hash,
        generation=entry.generation,
        fitness_score=entry.fitness_score,
        stamp=ns_to_time(entry.stamp),
        origin=entry.origin,
        active=active,
        barred=barred,
    )


def packet_to(packet: Packet) -> msg.GenomePacket:
    """A packet as a message."""
    return msg.GenomePacket(**_fields_to(packet))


def packet_from(message: msg.GenomePacket) -> Packet:
    """A packet as the room knows it."""
    return Packet(**_fields_from(message, Packet.__slots__))


def request_to(request: Request) -> msg.GenomeSyncRequest:
    """A request as a message."""
    return msg.GenomeSyncRequest(**_fields_to(request))


def request_from(message: msg.GenomeSyncRequest) -> Request:
    """A request as the room knows it."""
    return Request(**_fields_from(message, Request.__slots__))


def _fields_to(record: Packet | Request) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in record.__slots__}
    return {name: ns_to_time(v) if name in TIMES else v for name, v in values.items()}


def _fields_from(message: Any, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(message, name) for name in names}
    for name in values:
        if name in TIMES:
            values[name] = time_to_ns(values[name], name)
        elif name in BYTES:
            values[name] = bytes(values[name])
    return values
