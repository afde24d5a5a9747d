"""The shipped rules, case by case: the verdict a safety engineer expects, and why."""

import math
from typing import Any

import pytest

from brainos_ros.conscience import adopted
from brainos_ros.conscience.approvals import Approvals
from brainos_ros.conscience.circuit import Circuit
from brainos_ros.conscience.credentials import Operators
from brainos_ros.conscience.names import Names
from brainos_ros.conscience.rules_file import load

LOW, MEDIUM, HIGH, CRITICAL = range(4)
NAN, INF = math.nan, math.inf

TRIP = {"zone": "warehouse", "battery_percent": 80.0, "charging": False}
LOAD = {"payload_kg": 5.0, "person_distance_m": 10.0, "moving": False}
ARM = {"speed": "low", "nearby_objects": [], "environment": "warehouse"}
DOOR = {"door_state": "closed", "person_distance_m": 5.0}
DECK = {"tilt_deg": 5.0, "moving": False}
VOICE = {"text": "Excuse me", "volume_percent": 50.0}
UPDATE = {"signed": True, "moving": False}
SPEED = {"linear_mps": 0.5, "angular_radps": 0.0, "person_separation_m": 5.0,
         "obstacle_separation_m": 5.0}
GONE = object()

# action, base context, what differs in this case, verdict, why
CASES: list[tuple[str, dict[str, Any], dict[str, Any], int, str]] = [
    # Choosing a way moves nothing; every command it leads to is limited by the gate.
    ("aisle_1", {}, {}, LOW, "choosing an aisle moves nothing"),
    ("aisle_2", {}, {"length_m": 8.0}, LOW, "what is known of an aisle does no harm"),
    ("aisle_2", {}, {"weather": "clear", "people": 3}, LOW, "a free context is tolerated here"),
    ("path_a", {}, {}, LOW, "choosing a path moves nothing"),
    ("route_north", {}, {}, LOW, "choosing a route moves nothing"),
    ("station_a", {}, {}, LOW, "choosing a station moves nothing"),
    ("go:station_b", {}, {}, LOW, "the navigator's own name for it"),
    ("wait", {}, {"seconds": 2.0}, LOW, "waiting is harmless"),
    ("stop", {}, {}, LOW, "stopping must always be allowed"),
    ("dock", {}, {}, LOW, "docking goes through the gate"),
    ("undock", {}, {}, LOW, "undocking goes through the gate"),
    ("aisle_1", {}, {"length_m": NAN}, CRITICAL, "NaN is refused even where nobody reads it"),
    ("aisle_1", {}, {"length_m": INF}, CRITICAL, "so is infinity"),
    ("aisle_1", {}, {"length_m": [1.0, -INF]}, CRITICAL, "and infinity inside a list"),
    ("aisle_1", {}, {"note": "x" * 5000}, CRITICAL, "a text nobody needs to be that long"),
    ("aisle", {}, {}, CRITICAL, "no rule names it: `aisle_*` is not `aisle`"),
    ("AISLE_1", {}, {}, CRITICAL, "names are case-sensitive, as in ROS"),
    ("my_aisle_1", {}, {}, CRITICAL, "a pattern covers the whole name"),
    ("aisle_1 ", {}, {}, CRITICAL, "white space is not part of a name"),
    ("/aisle_1", {}, {}, LOW, "a leading slash is the same name"),
    ("aisle_1/", {}, {}, LOW, "so is a trailing one"),
    ("/r1/aisle_1", {}, {}, LOW, "and the robot's own namespace"),
    ("/r2/aisle_1", {}, {}, CRITICAL, "another robot's action is not ours"),
    # Trips.
    ("go_to", TRIP, {}, MEDIUM, "an ordinary trip, recorded"),
    ("go_to", TRIP, {"zone": "corridor"}, MEDIUM, "corridors are the working area"),
    ("go_to", TRIP, {"zone": "public"}, HIGH, "visitors do not know robots: ask a person"),
    ("go_to", TRIP, {"zone": "keep_out"}, CRITICAL, "closed to robots, nobody may allow it"),
    ("go_to", TRIP, {"zone": "roof"}, CRITICAL, "an unknown zone is refused"),
    ("go_to", TRIP, {"zone": ""}, CRITICAL, "no zone is no permission"),
    ("go_to", TRIP, {"zone": 3}, CRITICAL, "a zone is a name, not a number"),
    ("go_to", TRIP, {"zone": GONE}, CRITICAL, "where to must be said"),
    ("go_to", TRIP, {"battery_percent": 15.0}, MEDIUM, "15 % is just enough"),
    ("go_to", TRIP, {"battery_percent": 14.9}, HIGH, "below 15 % a person decides"),
    ("go_to", TRIP, {"battery_percent": 5.0}, HIGH, "5 % is still a person's choice"),
    ("go_to", TRIP, {"battery_percent": 4.9}, CRITICAL, "it would die on the way"),
    ("go_to", TRIP, {"battery_percent": 0.0}, CRITICAL, "an empty battery"),
    ("go_to", TRIP, {"battery_percent": 100}, MEDIUM, "a whole number is a number"),
    ("go_to", TRIP, {"battery_percent": 101.0}, CRITICAL, "a broken gauge is not trusted"),
    ("go_to", TRIP, {"battery_percent": -1.0}, CRITICAL, "nor below zero"),
    ("go_to", TRIP, {"battery_percent": NAN}, CRITICAL, "nor one that says NaN"),
    ("go_to", TRIP, {"battery_percent": "80"}, CRITICAL, "a number in quotes is a text"),
    ("go_to", TRIP, {"battery_percent": True}, CRITICAL, "true is not 1 percent"),
    ("go_to", TRIP, {"battery_percent": GONE}, CRITICAL, "not knowing is not full"),
    ("go_to", TRIP, {"charging": True}, CRITICAL, "the cable is still in"),
    ("go_to", TRIP, {"charging": 0}, CRITICAL, "0 is not false"),
    ("go_to", TRIP, {"charging": "false"}, CRITICAL, "a text is not false"),
    ("go_to", TRIP, {"zone": "public", "charging": True}, CRITICAL, "the worst rule decides"),
    ("go_to", TRIP, {"zone": "public", "battery_percent": 10.0}, HIGH, "two reasons to ask"),
    ("go_to", TRIP, {"zone": "keep_out", "battery_percent": 10.0}, CRITICAL, "deny overrides"),
    ("go_to", TRIP, {"speed": "high"}, CRITICAL, "an input no rule of go_to knows"),
    ("go_to", TRIP, {"override": True}, CRITICAL, "no input switches the rules off"),
    # Loads.
    ("pick", LOAD, {}, MEDIUM, "a light load, recorded"),
    ("place", LOAD, {}, MEDIUM, "the same when put down"),
    ("deliver", LOAD, {}, MEDIUM, "and when carried"),
    ("pick", LOAD, {"payload_kg": 0.0}, MEDIUM, "an empty box"),
    ("pick", LOAD, {"payload_kg": 25.0}, MEDIUM, "25 kg is the limit of light"),
    ("pick", LOAD, {"payload_kg": 25.1}, HIGH, "above it a person looks"),
    ("pick", LOAD, {"payload_kg": 100.0}, HIGH, "the base carries 100 kg"),
    ("pick", LOAD, {"payload_kg": 100.1}, CRITICAL, "and not a gram more"),
    ("pick", LOAD, {"payload_kg": 1000.0}, CRITICAL, "beyond the range of the scale"),
    ("pick", LOAD, {"payload_kg": -1.0}, CRITICAL, "a negative mass is a fault"),
    ("pick", LOAD, {"person_distance_m": 1.0}, MEDIUM, "one metre is far enough"),
    ("pick", LOAD, {"person_distance_m": 0.9}, HIGH, "closer, somebody must consent"),
    ("pick", LOAD, {"person_distance_m": 0.0}, HIGH, "touching, all the more"),
    ("deliver", LOAD, {"person_distance_m": 0.5}, MEDIUM, "on the way the gate keeps distance"),
    ("pick", LOAD, {"person_distance_m": INF}, CRITICAL, "`nobody` is 1000, not infinity"),
    ("pick", LOAD, {"person_distance_m": 1000.0}, MEDIUM, "nobody near"),
    ("pick", LOAD, {"person_distance_m": GONE}, CRITICAL, "not knowing is not far"),
    ("pick", LOAD, {"moving": True}, CRITICAL, "loads are handled at rest"),
    ("place", LOAD, {"moving": True}, CRITICAL, "in both directions"),
    ("deliver", LOAD, {"moving": True}, MEDIUM, "delivering is moving"),
    ("pick", LOAD, {"moving": True, "payload_kg": 50.0}, CRITICAL, "deny overrides asking"),
    ("tilt_deck", DECK, {}, MEDIUM, "a small tilt at rest"),
    ("tilt_deck", DECK, {"tilt_deg": 10.0}, MEDIUM, "10 degrees hold"),
    ("tilt_deck", DECK, {"tilt_deg": -10.0}, MEDIUM, "both ways"),
    ("tilt_deck", DECK, {"tilt_deg": 10.1}, CRITICAL, "beyond, the load slides: no rule allows it"),
    ("tilt_deck", DECK, {"moving": True}, CRITICAL, "level while moving"),
    ("tilt_deck", DECK, {"moving": True, "tilt_deg": 0.0}, MEDIUM, "levelling is always good"),
    ("tilt_deck", DECK, {"tilt_deg": 181.0}, CRITICAL, "not an angle"),
    # An arm.
    ("move_arm", ARM, {}, MEDIUM, "nobody there"),
    ("move_arm", ARM, {"speed": "high"}, MEDIUM, "fast is fine alone"),
    ("move_arm", ARM, {"nearby_objects": ["cube"]}, MEDIUM, "a cube does not mind"),
    ("move_arm", ARM, {"nearby_objects": ["human"]}, HIGH, "a person is within reach"),
    ("move_arm", ARM, {"speed": "high", "nearby_objects": ["human", "fragile_item"]}, HIGH,
     "the example of the safety contract"),
    ("move_arm", ARM, {"speed": "high", "nearby_objects": ["fragile_item"]}, HIGH,
     "fast beside something fragile"),
    ("move_arm", ARM, {"speed": "low", "nearby_objects": ["fragile_item"]}, MEDIUM,
     "slowly beside it is fine"),
    ("move_arm", ARM, {"speed": "medium", "nearby_objects": ["fragile_item"]}, MEDIUM,
     "medium too"),
    ("move_arm", ARM, {"nearby_objects": ["child"]}, CRITICAL, "never with a child near"),
    ("move_arm", ARM, {"nearby_objects": ["human", "child"]}, CRITICAL, "nor with its parents"),
    ("move_arm", ARM, {"nearby_objects": "human"}, CRITICAL, "a list is asked for"),
    ("move_arm", ARM, {"nearby_objects": ["human", 1]}, CRITICAL, "of texts only"),
    ("move_arm", ARM, {"nearby_objects": [["human"]]}, CRITICAL, "not of lists"),
    ("move_arm", ARM, {"nearby_objects": ["x"] * 257}, CRITICAL, "nor without end"),
    ("move_arm", ARM, {"nearby_objects": GONE}, CRITICAL, "not looking is not empty"),
    ("move_arm", ARM, {"speed": "HIGH"}, CRITICAL, "an unknown speed"),
    ("move_arm", ARM, {"speed": 0.5}, CRITICAL, "a speed is low, medium or high"),
    ("move_arm", ARM, {"speed": GONE}, CRITICAL, "no speed given"),
    ("move_arm", ARM, {"environment": GONE}, CRITICAL, "the contract wants the environment"),
    ("move_arms", ARM, {}, CRITICAL, "another action"),
    # Doors.
    ("open_door", DOOR, {}, MEDIUM, "nobody near a closed door"),
    ("close_door", DOOR, {"door_state": "open"}, MEDIUM, "nor near an open one"),
    ("open_door", DOOR, {"person_distance_m": 1.0}, MEDIUM, "a metre is enough"),
    ("open_door", DOOR, {"person_distance_m": 0.99}, HIGH, "closer, ask"),
    ("close_door", DOOR, {"door_state": "moving"}, CRITICAL, "it may pinch"),
    ("open_door", DOOR, {"door_state": "unknown"}, CRITICAL, "unknown is unsafe"),
    ("open_door", DOOR, {"door_state": "ajar"}, CRITICAL, "no such state"),
    ("open_door", DOOR, {"door_state": "moving", "person_distance_m": 0.1}, CRITICAL,
     "nobody may approve that"),
    # Voice and lights.
    ("say", VOICE, {}, LOW, "a polite word"),
    ("say", VOICE, {"volume_percent": 80.0}, LOW, "80 % is bearable"),
    ("say", VOICE, {"volume_percent": 81.0}, CRITICAL, "louder hurts: no rule allows it"),
    ("say", VOICE, {"text": ""}, CRITICAL, "nothing to say"),
    ("say", VOICE, {"text": "x" * 4097}, CRITICAL, "nobody listens that long"),
    ("lights/front", {}, {}, LOW, "lights move nothing"),
    ("lights", {}, {}, CRITICAL, "which light?"),
    ("lights/front", {}, {"colour": "red"}, CRITICAL, "no rule knows the input"),
    # The robot itself.
    ("install_update", UPDATE, {}, HIGH, "an update needs a person"),
    ("install_update", UPDATE, {"signed": False}, CRITICAL, "an unsigned one nobody may allow"),
    ("install_update", UPDATE, {"moving": True}, CRITICAL, "not while driving"),
    ("install_update", UPDATE, {"signed": "yes"}, CRITICAL, "yes is not true"),
    ("disable_gate", {}, {}, CRITICAL, "the guard is not switched off by an action"),
    ("override_rules", {}, {"why": "urgent"}, CRITICAL, "whatever the reason"),
    ("conscience/reset", {}, {}, CRITICAL, "a reset has a door of its own"),
    ("/conscience/approve", {}, {}, CRITICAL, "so has an approval"),
    ("halt", {}, {}, CRITICAL, "a halt is a door, not a proposal"),
    ("reset", {}, {}, CRITICAL, "likewise"),
    # Velocity, as the gate asks at each tick.
    ("cmd_vel", SPEED, {}, LOW, "limited already"),
    ("/cmd_vel", SPEED, {}, LOW, "the same name"),
    ("cmd_vel/", SPEED, {}, LOW, "the same name"),
    ("/r1/base/cmd", SPEED, {}, LOW, "where it was remapped to, still the wheels"),
    ("/r1/base/cmd", {}, {}, CRITICAL, "and judged as such: no inputs, no motion"),
    ("cmd_vel", SPEED, {"linear_mps": -0.5}, LOW, "slowly backwards"),
    ("cmd_vel", SPEED, {"linear_mps": -1.5}, CRITICAL, "not fast backwards"),
    ("cmd_vel", SPEED, {"linear_mps": NAN}, CRITICAL, "NaN never reaches a motor"),
    ("cmd_vel", SPEED, {"angular_radps": INF}, CRITICAL, "nor infinity"),
    ("cmd_vel", SPEED, {"linear_mps": 21.0}, CRITICAL, "nor nonsense"),
    ("cmd_vel", SPEED, {"person_separation_m": 0.0}, CRITICAL, "a person touches the base"),
    ("cmd_vel", SPEED, {"person_separation_m": 0.0, "linear_mps": 0.0}, LOW,
     "standing still is fine"),
    ("cmd_vel", SPEED, {"person_separation_m": -1.0}, CRITICAL, "no distance is negative"),
    ("cmd_vel", SPEED, {"person_separation_m": GONE}, CRITICAL, "not knowing is not far"),
    ("cmd_vel", SPEED, {"linear": 0.5}, CRITICAL, "an unknown field"),
    # Nothing else.
    ("launch", {}, {}, CRITICAL, "no rule means no"),
    ("", {}, {}, CRITICAL, "an empty name"),
    ("/", {}, {}, CRITICAL, "a slash is no name"),
    ("stop;disable_gate", {}, {}, CRITICAL, "not a name"),
    ("../stop", {}, {}, CRITICAL, "not a name"),
    ("~/stop", {}, {}, CRITICAL, "private names are not actions"),
    ("stоp", {}, {}, CRITICAL, "the o is Cyrillic"),
    ("stop\n", {}, {}, CRITICAL, "a line break is no part of a name"),
    ("*", {}, {}, CRITICAL, "a pattern is not a name"),
    ("s" * 300, {}, {}, CRITICAL, "longer than a ROS name may be"),
]


def make_circuit() -> Circuit:
    operators = Operators("robot", {})
    return Circuit(load(adopted.rules_file("")), operators,
                   Approvals(operators, "epoch", 300.0, lambda kind, body: None),
                   Names("/r1", ("/r1/base/cmd", "/r1/cmd_vel_raw")), lambda kind, body: None,
                   lambda: "", "epoch")


CIRCUIT = make_circuit()


@pytest.mark.parametrize(("action", "base", "change", "level", "why"), CASES)
def test_case(action: str, base: dict[str, Any], change: dict[str, Any], level: int,
              why: str) -> None:
    context = {name: value for name, value in {**base, **change}.items() if value is not GONE}
    verdict = CIRCUIT.evaluate(action, context, "pfc")
    assert verdict.level == level, f"{why}; but: {verdict.reason}"
    assert verdict.approved is (level <= MEDIUM)
    assert (verdict.approval is not None) is (level == HIGH)
    assert verdict.reason


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120


def test_every_shipped_rule_decides_a_case() -> None:
    fired = set()
    for action, base, change, _, _ in CASES:
        context = {name: value for name, value in {**base, **change}.items() if value is not GONE}
        fired |= set(CIRCUIT.evaluate(action, context, "pfc").rules)
    assert fired == {rule.id for rule in CIRCUIT.rules.rules}
