"""The genome's doors: converts, calls, answers. Evolution runs beside the node, never in it."""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from brainos_msgs import msg, srv

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync.default import default_genome
from brainos_ros.genome_sync.evolution import evolve
from brainos_ros.genome_sync.fleet import Register, read_key, read_members
from brainos_ros.genome_sync.lineage import MOST_ENTRIES, SUMMARY, Entry, Lineage
from brainos_ros.genome_sync.packet import Fleet, Packet, load_identity
from brainos_ros.genome_sync.worker import Worker
from brainos_ros.ros import genome_messages as messages
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import dict_to_attributes, ns_to_time
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter
from brainos_ros.ros.side import Side

MAX_CANDIDATES = 64
KEY_VARIABLE = "BRAINOS_SERIALIZATION_KEY"
UPDATED, REQUESTED, DELTA = (
    f"/brainos/genome/{name}" for name in ("updated", "sync_request", "delta")
)


class GenomeSyncNode(BrainNode):
    """Holds the policy genome, evolves it, and tells the fleet."""

    role = "genome_sync"
    parameters = (
        Parameter(
            "fitness",
            "brainos_ros.robots.rollout:evaluate",
            "function module:name, called as f(parameters, seed, seconds), higher is better",
        ),
        Parameter("candidates", 8, "offspring of a generation", minimum=1, maximum=MAX_CANDIDATES),
        Parameter("rollouts", 2, "roll-outs of each candidate", minimum=1, maximum=100),
        Parameter(
            "rollout_s", 60.0, "length of a roll-out", unit="s", minimum=0.1, maximum=86_400.0
        ),
        Parameter(
            "evolve_timeout_s",
            120.0,
            "a generation is given up after",
            unit="s",
            minimum=0.1,
            maximum=86_400.0,
        ),
        Parameter("fleet_key_file", "", f"the fleet's secret; empty: {KEY_VARIABLE}, or no fleet"),
        Parameter("fleet_members_file", "", "YAML of robot name to Ed25519 public key (hex)"),
        Parameter("fleet_size", 32, "robots in the fleet at most", minimum=1, maximum=1000),
        Parameter("platform", "cpu", "what this robot evolves on, told to the fleet"),
    )

    def activate(self) -> None:
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        self._worker: Worker | None = None
        self._closing = False
        self._counter = 0
        self._register = self._join_fleet()
        self._lineage = Lineage(self.home / self.role, self.record, self._keep)
        self._lineage.restore(self._records(), default_genome(), self._now())
        self.door(srv.GetGenomeStatus, "genome_sync/get_status", self._get_status)
        self.door(srv.ListHistory, "genome_sync/list_history", self._list_history)
        self.door(srv.Rollback, "genome_sync/rollback", self._rollback)
        self.door(srv.SyncGenome, "genome_sync/sync", self._sync)
        if self._register:
            self._open_fleet_topics(self._register)
        self._side = Side(self, srv.Evolve, "genome_sync/evolve", self._evolve)

    def deactivate(self) -> None:
        self._closing = True
        if worker := getattr(self, "_worker", None):
            worker.kill()
        if side := self.__dict__.pop("_side", None):
            side.close()

    def diagnose(self) -> Mapping[str, object]:
        if not self.is_active:
            return {}
        active = self._lineage.active
        values = {
            "genome": active.genome_hash[:12],
            "generation": active.generation,
            "fitness": active.fitness_score,
            "evolving": self._busy.locked(),
        }
        if self._register:
            values["public_key"] = self._register.fleet.public_key.hex()
            values["packets_refused"] = self._register.rejected
        return values

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _records(self) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        """The genome's events; where some were pruned, the live summary in place of those up to it.

        Every event is followed by a summary at once, so pruning after it takes no other event.
        """
        live = {each.path: each.sequence for each in self.ledger.live()}
        expected, passing_over = 0, False
        for record in self.ledger.records(0):
            if record.sequence != expected:
                if SUMMARY not in live:
                    raise BrainError(
                        "the records that say which genome is in use were pruned: restore the "
                        "stream genome_sync from its backup "
                        "(brainos ledger backup genome_sync DIRECTORY --restore)",
                        ErrorCode.UNAVAILABLE,
                    )
                passing_over = record.sequence <= live[SUMMARY]
            expected = record.sequence + 1
            if record.erased or not record.kind.startswith(("genome", "put")):
                continue
            body = json.loads(record.body)
            self._counter = max(self._counter, body.get("counter", 0))
            if record.kind != "put" and not passing_over:
                yield record.sequence, record.kind, body
            elif passing_over and record.sequence == live[SUMMARY]:
                passing_over = False
                yield record.sequence, SUMMARY, body

    def _keep(self, summary: Mapping[str, Any]) -> None:
        try:
            self.ledger.put(SUMMARY, summary)
        except BrainError as error:  # the event is there, and the next start sums up again
            self.get_logger().warning(f"the summary of the genomes is not kept: {error}")

    # ---------------------------------------------------------------- doors

    def _generation(self, entry: Entry) -> msg.GenomeGeneration:
        active, barred = self._lineage.active, self._lineage.barred
        return messages.generation_to(entry, entry is active, entry.genome_hash in barred)

    def _get_status(self, request: Any, response: Any) -> Any:
        with self._lock:
            genome = self._lineage.genome
            response.active = self._generation(self._lineage.active)
        response.parameters = dict_to_attributes(genome.parameters)
        response.genes = sum(1 for _ in genome.genes())
        response.evolving = self._busy.locked()
        if self._register:
            response.peers = len(self._register.peers)
            response.last_sync = ns_to_time(self._register.last_heard)
        return response

    def _list_history(self, request: Any, response: Any) -> Any:
        if request.limit > MOST_ENTRIES:
            raise BrainError(f"limit is {request.limit}: give 1 to {MOST_ENTRIES}, or 0 for 20")
        with self._lock:
            newest = self._lineage.entries[::-1][: request.limit or 20]
            response.generations = [self._generation(entry) for entry in newest]
        return response

    def _rollback(self, request: Any, response: Any) -> Any:
        with self._lock:
            if request.release:
                self._lineage.release(request.genome_hash, request.reason)
            else:
                self._lineage.rollback(request.genome_hash, request.reason, self._now())
            response.generation = self._generation(self._lineage.active)
        if not request.release:
            response.message = self._announce()
        return response

    def _sync(self, request: Any, response: Any) -> Any:
        if self._register is None:
            raise BrainError(
                f"this robot is in no fleet: set fleet_key_file (or {KEY_VARIABLE}) "
                "and fleet_members_file",
                ErrorCode.UNAVAILABLE,
            )
        asked = self._register.ask(self._lineage.active.genome_hash)
        self._requests.publish(messages.request_to(asked))
        response.peers = len(self._register.peers)
        response.rejected = self._register.rejected
        response.generation = self._generation(self._lineage.active)
        response.success = False
        response.error_code = int(ErrorCode.UNAVAILABLE)
        response.message = "the fleet was asked; its genomes are verified and kept, not yet merged"
        return response

    def _evolve(self, request: Any, response: Any) -> Any:
        if request.candidates > MAX_CANDIDATES:
            raise BrainError(f"candidates is {request.candidates}: give 1 to {MAX_CANDIDATES}")
        if not self._busy.acquire(blocking=False):
            raise BrainError("an evolution is running already", ErrorCode.GENOME_BUSY)
        try:
            return self._breed(request, response)
        finally:
            self._busy.release()

    def _breed(self, request: Any, response: Any) -> Any:
        seed = request.seed or random.SystemRandom().randrange(1, 2**63)
        count = request.candidates or self.settings["candidates"]
        started = time.monotonic()
        with self._lock:
            parent, before = self._lineage.genome, self._lineage.active.genome_hash
            strategy, barred = self._lineage.strategy(count), set(self._lineage.barred)
        self._worker = worker = Worker(
            self.settings["fitness"], self.settings["rollout_s"], self.settings["evolve_timeout_s"]
        )
        try:
            if self._closing:
                worker.kill()
            rollouts = self.settings["rollouts"]
            result = evolve(parent, strategy, count, seed, rollouts, worker.evaluate, barred)
        except BrainError as error:
            reason = f" (it raised {worker.last_error})" if worker.last_error else ""
            raise BrainError(f"{error}{reason}", error.code) from None
        finally:
            self._worker = None
            worker.close()
        with self._lock:
            if self._lineage.active.genome_hash != before:
                raise BrainError(
                    "the genome in use was changed meanwhile: evolve again", ErrorCode.CANCELLED
                )
            self._lineage.evolved(result, seed, self._now())
            response.generation = self._generation(self._lineage.active)
        if result.begun_anew:
            self.get_logger().warning("what evolution had learned was worn out: it begins anew")
        if result.improved:
            response.message = self._announce()
        response.improved, response.evaluated = result.improved, result.evaluated
        response.fitness_before, response.fitness_after = (
            result.fitness_before,
            result.fitness_after,
        )
        response.seed_used = seed
        response.duration_s = time.monotonic() - started
        return response

    # ---------------------------------------------------------------- fleet

    def _join_fleet(self) -> Register | None:
        named = self.settings["fleet_key_file"]
        key = read_key(Path(named)) if named else os.environ.get(KEY_VARIABLE, "").encode()
        if not key:
            return None
        identity = load_identity(self.home / self.role / "identity.key")
        robot = self.settings["robot"]
        members = self.settings["fleet_members_file"]
        keys = read_members(Path(members)) if members else {}
        keys[robot] = identity.public_key().public_bytes_raw()
        return Register(Fleet(key, identity, keys), robot)

    def _open_fleet_topics(self, register: Register) -> None:
        on_packet = partial(self._on_packet, register)
        on_request = partial(self._on_request, register)
        latched = qos.fleet_state(self.settings["fleet_size"])
        self._updates = self.create_publisher(msg.GenomePacket, UPDATED, qos.STATE)
        self._requests = self.create_publisher(msg.GenomeSyncRequest, REQUESTED, qos.EVENT)
        self._deltas = self.create_publisher(msg.GenomePacket, DELTA, qos.EVENT)
        self.create_subscription(msg.GenomePacket, UPDATED, on_packet, latched)
        self.create_subscription(msg.GenomePacket, DELTA, on_packet, qos.EVENT)
        self.create_subscription(msg.GenomeSyncRequest, REQUESTED, on_request, qos.EVENT)

    def _packet(self, register: Register) -> msg.GenomePacket:
        with self._lock:
            entry, genome = self._lineage.active, self._lineage.genome
            counter = self._counter + 1
            self.record("genome", {"counter": counter, "published": entry.genome_hash})
            self.ledger.put("counter", {"counter": counter})
            self.ledger.sync()
            self._counter = counter
        signed = register.fleet.sign(
            Packet(
                str(uuid4()),
                register.robot,
                "",
                entry.genome_hash,
                genome.encode(),
                1,
                counter,
                entry.generation,
                entry.fitness_score,
                entry.stamp,
                self.settings["platform"],
            )
        )
        return messages.packet_to(signed)

    def _announce(self) -> str:
        """Tell the fleet of the genome in use, which stays that whatever comes of it.

        Returns a remark where it failed, else nothing.
        """
        try:
            if self._register:
                self._updates.publish(self._packet(self._register))
        except Exception as error:
            remark = f"done, but the fleet was not told: {error}"
            self.note_failure(remark)
            return remark
        return ""

    def _on_packet(self, register: Register, message: msg.GenomePacket) -> None:
        self._take(lambda: register.receive(messages.packet_from(message), self._now()))

    def _on_request(self, register: Register, message: msg.GenomeSyncRequest) -> None:
        if self._take(lambda: register.wants(messages.request_from(message))):
            self._deltas.publish(self._packet(register))

    def _take(self, look: Callable[[], bool]) -> bool:
        try:
            return look()
        except BrainError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return False


def main() -> None:
    """Entry point of the `genome_sync` executable."""
    run(GenomeSyncNode)
