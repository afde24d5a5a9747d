"""The world model's doors: converts, calls the journal, answers."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from action_msgs.msg import GoalStatus, GoalStatusArray
from brainos_msgs import msg, srv
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_action_status_default
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import LaserScan
from visualization_msgs.msg import MarkerArray

from brainos_ros.clock import Unstepped
from brainos_ros.errors import BrainError
from brainos_ros.ros import qos
from brainos_ros.ros import world_messages as messages
from brainos_ros.ros.conversions import attributes_to_dict, ns_to_time
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter
from brainos_ros.world_model import senses
from brainos_ros.world_model.entities import Entity, Relation
from brainos_ros.world_model.journal import KINDS, Journal

SECOND = 1_000_000_000
MARKER_PERIOD_NS = SECOND // 2
SCAN_HOLDS_NS = 10 * SECOND
UPKEEP_PERIOD_S = 1.0
BUSY = (GoalStatus.STATUS_ACCEPTED, GoalStatus.STATUS_EXECUTING, GoalStatus.STATUS_CANCELING)


class WorldModelNode(BrainNode):
    """Entities, relations and observations of one robot's world."""

    role = "world_model"
    parameters = (
        Parameter(
            "max_entities",
            2_000,
            "entities held at most; a snapshot of all takes about 50 µs for each, in one piece",
            minimum=1,
            maximum=100_000,
        ),
        Parameter(
            "sense_period_s",
            0.25,
            "time between looks at odom, scan and tracked people; also the "
            "shortest time between two world_model/state",
            unit="s",
            minimum=0.02,
            maximum=10.0,
        ),
        Parameter("odom_topic", "odom", "nav_msgs/Odometry of the robot"),
        Parameter("scan_topic", "scan", "sensor_msgs/LaserScan of the robot"),
        Parameter("tracked_people_topic", "tracked_people", "brainos_msgs/TrackedPeople; "
                  "empty if nobody tracks people"),
    )

    _open: Journal | None = None

    def activate(self) -> None:
        folder = self.home / self.role
        journal = Journal(folder, self.record, max_entities=self.settings["max_entities"])
        wall = self._ros_now
        journal.restore(self._records, self.ledger.size - 1, wall(), self.ledger.origin)
        steady = wall if self.get_clock().ros_time_is_active else time.monotonic_ns
        self._lived = Unstepped(wall, steady, journal.world.latest)
        self._journal = self._open = journal
        self._raw: dict[str, bytes] = {}
        self._people: int | None = None
        self._nearest = math.nan
        self._goals = 0
        self._published: tuple[object, ...] | None = None
        self._drawn = -1
        self._seen_at: dict[str, int] = {}
        self._drawn_at = 0
        self._drawn_ids: set[str] = set()
        self._refused = 0
        self._settle_in()
        self._open_doors()
        self._state = self.create_publisher(msg.WorldState, "world_model/state", qos.STATE)
        self._markers = self.create_publisher(MarkerArray, "world_model/markers", qos.STATE)
        self.create_subscription(msg.Observation, "observations", self._on_observation, qos.EVENT)
        for name, kind in (
            ("odom", Odometry),
            ("scan", LaserScan),
            ("tracked_people", msg.TrackedPeople),
        ):
            if topic := self.settings[f"{name}_topic"]:
                self.create_subscription(kind, topic, self._keep(name), qos.SENSOR, raw=True)
        self.create_subscription(
            GoalStatusArray,
            "pfc/pursue/_action/status",
            self._on_goals,
            qos_profile_action_status_default,
        )
        approvals = self.outgoing.client(srv.ListPending, "conscience/list_pending")
        self._approvals = self._owned(approvals, self.outgoing.node.destroy_client)
        self._asked: Any = None
        self._pending: int | None = None
        self.every(self.settings["sense_period_s"], self._look)
        self.every(UPKEEP_PERIOD_S, self._keep_up)
        self._look()

    def deactivate(self) -> None:
        journal, self._open = self._open, None
        if journal:
            journal.close(self._lived.now())

    def diagnose(self) -> Mapping[str, object]:
        if not self.is_active:
            return {}
        world = self._journal.world
        return {
            "entities": len(world.entities),
            "version": world.version,
            "refused": self._refused,
        }

    def _ros_now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _records(self, first: int) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        expected = first
        for record in self.ledger.records(first):
            if record.sequence != expected:
                self.get_logger().warning(
                    f"records {expected} to {record.sequence - 1} were pruned and are newer than "
                    "world.json: what they changed is not in the world"
                )
            expected = record.sequence + 1
            if record.kind in KINDS and not record.erased:
                yield record.sequence, record.kind, json.loads(record.payload)

    def _settle_in(self) -> None:
        name, world = self.settings["robot"], self._journal.world
        if name not in world.entities:
            now = self._lived.now()
            self._journal.commit(world.plan_create(Entity.new("robot", now, name, rank=10)), now)
        world.robot = name

    def _open_doors(self) -> None:
        for kind, name, handler in (
            (srv.CreateEntity, "create_entity", self._create),
            (srv.GetEntity, "get_entity", self._get),
            (srv.ListEntities, "list_entities", self._list),
            (srv.DeleteEntity, "delete_entity", self._delete),
            (srv.Relate, "relate", self._relate),
            (srv.Observe, "observe", self._observe),
            (srv.GetSnapshot, "get_snapshot", self._snapshot),
            (srv.GetImpact, "get_impact", self._impact),
        ):
            self.door(kind, f"world_model/{name}", handler)

    # ---------------------------------------------------------------- doors

    def _fresh(self) -> int:
        now = self._lived.now()
        self._journal.world.expire(now)
        return now

    def _create(self, request: Any, response: Any) -> Any:
        now = self._fresh()
        entity = messages.entity_from(request.entity, now)
        self._journal.commit(self._journal.world.plan_create(entity), now)
        held = self._journal.world.get(entity.entity_id)
        response.entity_id = held.entity_id
        response.created_at = ns_to_time(held.created_at + self._lived.skew())
        return response

    def _get(self, request: Any, response: Any) -> Any:
        self._fresh()
        world = self._journal.world
        held, skew = world.get(request.entity_id), self._lived.skew()
        response.entity = messages.entity_to(held, skew)
        response.relations = list(map(messages.relation_to, world.relations_of(request.entity_id)))
        return response

    def _list(self, request: Any, response: Any) -> Any:
        self._fresh()
        filters = attributes_to_dict(request.filters, "filters")
        entities, response.total_count = self._journal.world.select(
            request.entity_type, filters, request.limit, request.after
        )
        skew = self._lived.skew()
        response.entities = [messages.entity_to(entity, skew) for entity in entities]
        return response

    def _delete(self, request: Any, response: Any) -> Any:
        now = self._fresh()
        self._journal.commit(self._journal.world.plan_delete(request.entity_id), now)
        return response

    def _relate(self, request: Any, response: Any) -> Any:
        now, world, asked = self._fresh(), self._journal.world, request.relation
        relation = Relation(asked.source_id, asked.relation_type, asked.target_id)
        plan = world.plan_unrelate if request.remove else world.plan_relate
        self._journal.commit(plan(relation), now)
        return response

    def _observe(self, request: Any, response: Any) -> Any:
        now, skew = self._fresh(), self._lived.skew()
        observation = messages.observation_from(request.observation, now, skew)
        self._journal.observe(observation, now)
        response.observation_id = observation.observation_id
        response.processed_at = ns_to_time(now + skew)
        return response

    def _snapshot(self, request: Any, response: Any) -> Any:
        now = self._fresh()
        snapshot = self._journal.world.snapshot(request.entity_types, request.since_version)
        messages.fill_snapshot(response, snapshot, now, self._lived.skew())
        response.active_decisions = self._goals
        if self._pending is None:
            response.message = "pending approvals are not counted: the conscience did not answer"
        else:
            response.pending_approvals = self._pending
        return response

    def _keep_up(self) -> None:
        """Record what streamed in; ask how many approvals wait, and do not wait for the answer."""
        self._journal.flush(self._lived.now())
        unanswered, self._asked = self._asked, None
        if unanswered:
            self._approvals.remove_pending_request(unanswered)
            self._pending = None
        if self._approvals.service_is_ready():
            self._asked = self._approvals.call_async(srv.ListPending.Request())
            self._asked.add_done_callback(self._count_approvals)
        else:
            self._pending = None

    def _count_approvals(self, answered: Any) -> None:
        if answered is self._asked:
            reply, self._asked = answered.result(), None
            self._pending = len(reply.pending) if reply.success else None

    def _impact(self, request: Any, response: Any) -> Any:
        self._fresh()
        affected = self._journal.world.impact(
            request.entity_id, request.relation_types, request.max_depth
        )
        response.entity_ids = [entity_id for entity_id, _ in affected]
        response.depths = [depth for _, depth in affected]
        return response

    # ---------------------------------------------------------------- senses

    def _keep(self, name: str) -> Any:
        def keep(data: bytes) -> None:
            self._raw[name] = data

        return keep

    def _on_goals(self, message: GoalStatusArray) -> None:
        self._goals = sum(goal.status in BUSY for goal in message.status_list)

    def _on_observation(self, message: msg.Observation) -> None:
        now = self._fresh()
        try:
            observation = messages.observation_from(message, now, self._lived.skew())
            self._journal.stream(observation, now)
        except BrainError as error:
            self._refused += 1
            self.get_logger().warning(f"observation refused: {error}", throttle_duration_sec=5.0)

    def _look(self) -> None:
        now, raw = self._fresh(), self._raw
        self._raw = {}
        self._seen_at |= dict.fromkeys(raw, now)
        if "tracked_people" in raw:
            self._see_people(raw["tracked_people"], now)
        try:
            self._see_robot(raw, now)
        except BrainError as error:
            self._refused += 1
            self.get_logger().warning(f"sensor refused: {error}", throttle_duration_sec=5.0)
        if now - self._seen_at.get("tracked_people", 0) > senses.PERSON_TTL_NS:
            self._people = None
        self._publish(now)

    def _see_robot(self, raw: Mapping[str, bytes], now: int) -> None:
        figures: dict[str, float] = {}
        pose = None
        if "scan" in raw:
            scan = deserialize_message(raw["scan"], LaserScan)
            self._nearest = senses.nearest_return(scan.ranges, scan.range_min, scan.range_max)
            figures["nearest_obstacle_m"] = self._nearest
        elif now - self._seen_at.get("scan", 0) > SCAN_HOLDS_NS:
            figures["nearest_obstacle_m"] = self._nearest = math.nan
        if "odom" in raw:
            odom = deserialize_message(raw["odom"], Odometry)
            pose = messages.pose_from(odom.header.frame_id, odom.pose)
            figures["speed_mps"] = odom.twist.twist.linear.x
        held = self._journal.world.entities.get(self.settings["robot"])
        changed = senses.robot(held, pose, figures, now) if held else None
        if changed:
            self._journal.live(changed)

    def _see_people(self, data: bytes, now: int) -> None:
        tracked = deserialize_message(data, msg.TrackedPeople)
        self._people = len(tracked.people)
        known = self._journal.world.entities
        for person in senses.people(messages.people_from(tracked), known, now):
            self._journal.live(person)

    def _publish(self, now: int) -> None:
        world = self._journal.world
        nearest = (math.isnan(self._nearest), math.isinf(self._nearest))
        content = (world.version, self._people, nearest)
        if content != self._published:
            self._published = content
            robot = world.entities.get(self.settings["robot"])
            said = (self._nearest, self._people, now, self._lived.skew())
            self._state.publish(messages.state_to(world, robot, *said))
        due = world.version != self._drawn and now - self._drawn_at >= MARKER_PERIOD_NS
        if due and self._markers.get_subscription_count():
            self._drawn, self._drawn_at = world.version, now
            array, self._drawn_ids = messages.draw(world, self._drawn_ids)
            self._markers.publish(array)


def main() -> None:
    """Entry point of the `world_model` executable."""
    run(WorldModelNode)
