"""Recorded people walk as they were recorded, whatever the file looks like."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.recorded import (
    RecordedPeople,
    flows_along_x,
    frame_gap,
    read_rows,
    tracks_of,
)

NOBODY = np.zeros(4)


def written(folder: Path, text: str) -> Path:
    path = folder / "people.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def where(people: RecordedPeople) -> dict[int, tuple[float, float]]:
    return dict(zip(people.ids.tolist(), map(tuple, people.positions.tolist()), strict=True))


def advance_to(people: RecordedPeople, recorded_s: float) -> None:
    people.advance(people.recording_begins_s + recorded_s - people.time_s, NOBODY)


def test_positions_are_linear_between_frames_and_velocities_their_slope(tmp_path):
    people = RecordedPeople(written(tmp_path, "0 1 0 0\n10 1 0 1\n20 1 2 1\n"), 0.5)
    advance_to(people, 0.25)
    assert where(people)[1] == pytest.approx((0.0, 0.5))
    assert people.velocities[0] == pytest.approx([0.0, 2.0])
    advance_to(people, 0.75)
    assert where(people)[1] == pytest.approx((1.0, 1.0))
    assert people.velocities[0] == pytest.approx([4.0, 0.0])


def test_tabs_floats_comments_and_any_order_of_rows(tmp_path):
    text = "# frame id x y\n\n12.0\t7.0\t1.5e0\t-2\n6.0\t7.0\t1.5\t-3.0\n18\t7\t1.5\t-1\n"
    people = RecordedPeople(written(tmp_path, text), 0.4)
    advance_to(people, 0.6)
    assert where(people)[1] == pytest.approx((1.5, -1.5))


def test_a_hole_in_a_track_is_walked_straight_and_others_come_and_go(tmp_path):
    text = "0 1 0 0\n1 1 0 1\n4 1 0 4\n5 1 0 5\n0 2 3 0\n1 2 3 -1\n2 2 3 -2\n"
    people = RecordedPeople(written(tmp_path, text), 1.0)
    advance_to(people, 2.5)
    assert where(people)[1] == pytest.approx((0.0, 2.5))


def test_someone_away_for_long_comes_back_as_another_visit(tmp_path):
    rows = read_rows(written(tmp_path, "0 1 0 0\n1 1 0 1\n100 1 5 0\n101 1 5 1\n"))
    assert [track.times.tolist() for track in tracks_of(rows, 1.0)] == [[0, 1], [100, 101]]


@pytest.mark.parametrize(("frames", "gap"), [([0, 10, 20, 40], 10), ([0.5, 1.0, 1.5], 0.5)])
def test_the_frame_gap_is_the_most_frequent_one(frames, gap):
    assert frame_gap([(frame, 1, 0.0, 0.0) for frame in frames]) == gap


def test_nobody_appears_or_vanishes_inside_the_hall(tmp_path):
    people = RecordedPeople(written(tmp_path, "0 1 0 0\n1 1 0 1\n0 2 2 4\n1 2 2 4\n"), 1.0)
    before: dict[int, tuple[float, float]] = {}
    x0, y0, x1, y1 = people.layout.extent
    for _ in range(4000):
        people.advance(0.01, NOBODY)
        now = where(people)
        for identity in before.keys() ^ now.keys():
            x, y = {**before, **now}[identity]
            assert min(x - x0, x1 - x, y - y0, y1 - y) < 0.05
        for identity in before.keys() & now.keys():
            assert np.hypot(*np.subtract(now[identity], before[identity])) < 0.021
        before = now


def test_at_the_end_it_begins_again_with_new_ids(tmp_path):
    people = RecordedPeople(written(tmp_path, "0 1 0 0\n1 1 0 1\n"), 1.0)
    advance_to(people, 0.5)
    once = where(people)
    people.advance(people.duration_s, NOBODY)
    assert list(where(people).values()) == [pytest.approx(place) for place in once.values()]
    assert not once.keys() & where(people).keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 1 0 0\n10 1 0\n", "line 2: expected 'frame id x y', got '10 1 0'"),
        ("0 1 0 zero\n", "line 1"),
        ("0 1 0 0\n\n1 1 nan 0\n", "line 3: expected x and y of at most 10000000 m"),
        ("0 1 0 0\n1 1 0 -1e308\n", "line 2: expected x and y of at most 10000000 m"),
        ("0 1 0 0\n1 1 inf 1e308\n", "line 2: expected x and y"),
        ("nan 1 0 0\n", "line 1: expected a frame of at most 2^63, got 'nan 1 0 0'"),
        ("0 1 0 0\n-1e300 1 0 0\n", "line 2: expected a frame"),
        ("0 inf 0 0\n", "line 1: expected a whole number as id"),
        ("0 1.5 0 0\n", "line 1: expected a whole number as id"),
        ("0 9007199254740992.0 0 0\n", "line 1: expected a whole number as id"),
        (f"0 {'9' * 5000} 0 0\n", "line 1: expected a whole number as id"),
        ("0 1 0 0 9\n", "line 1"),
        ("0,1,0,0\n", "line 1: expected 'frame id x y', got '0,1,0,0'"),
        ("0 1 1 1\n\n0 1 5 5\n", "line 3: expected person 1 where line 1 has it in this frame"),
        ("0 1 1 1\n1e-7 1 2 2\n", "line 2: expected person 1 where line 1 has it"),
        ("0 1 0 0\n1 1 0 1\n99999 2 0 0\n", "nobody is there from frame 1 to frame 99999"),
        ("# nothing\n", "holds no row"),
        ("0 1 0 0\n0 2 1 1\n", "nobody is in more than one frame"),
    ],
)
def test_a_malformed_file_is_refused_naming_file_and_line(tmp_path, text, said):
    with pytest.raises(BrainError, match="people_file") as refused:
        RecordedPeople(written(tmp_path, text), 0.4)
    assert said in str(refused.value)


def test_a_missing_file_and_a_wrong_step_are_refused(tmp_path):
    with pytest.raises(BrainError, match="nowhere") as missing:
        RecordedPeople(tmp_path / "nowhere.txt")
    assert missing.value.code == ErrorCode.NOT_FOUND
    with pytest.raises(BrainError, match="people_time_step_s is 0"):
        RecordedPeople(written(tmp_path, "0 1 0 0\n1 1 0 1\n"), 0.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [("9007199254740992", "9007199254740993"), ("1e3", "1001.0"), ("-1", "1"), ("0", "9" * 40)],
)
def test_two_people_are_two_however_their_ids_are_written(tmp_path, one, other):
    text = f"0 {one} 0 0\n1 {one} 0 1\n0 {other} 2 0\n1 {other} 2 1\n"
    assert len(tracks_of(read_rows(written(tmp_path, text)), 0.4)) == 2


def test_one_person_is_one_though_the_id_is_a_float_once(tmp_path):
    (track,) = tracks_of(read_rows(written(tmp_path, "0 7 0 0\n1 7.0 0 1\n")), 0.4)
    assert track.times.tolist() == [0.0, 0.4]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff0 1 0 0\n1 1 0 1\n",
        "0 1 0 0\r\n1 1 0 1\r\n",
        "0 1 0 0\n0 1 0 0\n1 1 0 1\n",
        "1 1 0 1\n0 1 0 0\n",
        "-10\t1\t0\t0\n\n # a comment\n-9\t1\t0\t1",
        "1700000000.0 1 0 0\n1700000000.4 1 0 1\n",
        "1700000000000000000 1 0 0\n1700000000400000000 1 0 1\n",
    ],
)
def test_a_walker_is_read_however_the_file_is_written(tmp_path, text):
    people = RecordedPeople(written(tmp_path, text), 0.4)
    advance_to(people, 0.2)
    assert where(people)[1] == pytest.approx((0.0, 0.5), abs=1e-6)


def test_who_is_in_one_frame_only_comes_and_goes_too(tmp_path):
    people = RecordedPeople(written(tmp_path, "0 1 0 0\n1 1 0 1\n1 2 3 1\n"), 1.0)
    advance_to(people, 1.0)
    assert where(people)[2] == pytest.approx((3.0, 1.0))


def test_places_as_far_out_as_they_may_be(tmp_path):
    people = RecordedPeople(written(tmp_path, "0 1 -1e7 -1e7\n1 1 1e7 1e7\n"), 0.4)
    advance_to(people, 0.2)
    assert where(people)[1] == pytest.approx((0.0, 0.0), abs=1e-3)


track = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(tracks=st.lists(track, min_size=1, max_size=4), step=st.floats(0.1, 2.0))
def test_capacity_is_never_exceeded_and_annotated_places_are_met(tmp_path_factory, tracks, step):
    text = "".join(
        f"{frame * 5} {identity} {x!r} {y!r}\n"
        for identity, places in enumerate(tracks)
        for frame, (x, y) in enumerate(places)
    )
    people = RecordedPeople(written(tmp_path_factory.mktemp("people"), text), step)
    longest = max(len(places) for places in tracks)
    for frame in range(longest):
        advance_to(people, min(frame * step + 1e-9, people.duration_s))
        assert len(people.ids) <= people.capacity
        for identity, places in enumerate(tracks):
            if frame < len(places) - 1:
                assert where(people)[identity + 1] == pytest.approx(places[frame], abs=1e-4)


@pytest.mark.parametrize(("name", "along_x"), [("hotel", False), ("eth", True)])
def test_real_recordings_play_with_lanes_across_their_flow(shared_data, name, along_x):
    path = shared_data / f"pedestrians-biwi_{name}.txt"
    rows = read_rows(path)
    assert flows_along_x(tracks_of(rows, 0.4)) is along_x
    people = RecordedPeople(path, 0.4)
    frame = rows[200][0]
    advance_to(people, (frame - rows[0][0]) / 10 * 0.4 + 1e-9)
    for x, y in ((x, y) for at, _, x, y in rows if at == frame):
        assert np.hypot(*(people.positions - [x, y]).T).min() < 1e-6
