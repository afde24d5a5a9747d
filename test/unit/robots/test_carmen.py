"""CARMEN logs: any number of beams, any order of lines, and what is wrong with a line."""

import gzip
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.carmen import OdometryRow, ScanRow, angle_increment, read


def odom(time_s, x=0.0):
    return f"ODOM {x} 2 0.5 0.3 0.1 0 {time_s} host {time_s}"


def laser(time_s, ranges, kind="FLASER"):
    beams = " ".join(map(str, ranges))
    return f"{kind} {len(ranges)} {beams} 1 2 0.5 1.1 2.1 0.6 {time_s} host {time_s}"


def robot_laser(time_s, ranges, remissions=(), number=1, start=-1.0, step=0.5, furthest=50.0):
    beams = " ".join(map(str, [len(ranges), *ranges, len(remissions), *remissions]))
    return (
        f"ROBOTLASER{number} 0 {start} 3.14 {step} {furthest} 0.01 0 {beams} 1 2 0.5 1.1 2.1 0.6"
        f" 0.3 0.1 0 0 0 {time_s} host {time_s}"
    )


def log_of(folder, *lines):
    path = folder / "robot.log"
    path.write_text("\n".join(lines) + "\n")
    return read(path)


def test_rows_come_in_the_order_of_time(tmp_path):
    log = log_of(tmp_path, odom(3.0), laser(1.0, [1, 2, 3, 4]), odom(2.0), odom(1.0, x=7))
    assert [row.time_s for row in log.rows] == [1.0, 1.0, 2.0, 3.0]
    assert isinstance(log.rows[0], ScanRow), "lines of the same time stay in their order"
    assert log.duration_s == 2.0


def test_what_a_row_says(tmp_path):
    log = log_of(tmp_path, odom(1.0, x=4), laser(2.0, [0.0, 1.5, 79.9, 81.83]))
    first, scan = log.rows
    assert first == OdometryRow(1.0, (4.0, 2.0, 0.5), 0.3, 0.1)
    assert scan.ranges.tolist() == [0.0, 1.5, 79.9, math.inf]
    assert scan.pose == (1.1, 2.1, 0.6)
    assert not scan.rear


@pytest.mark.parametrize(
    ("beams", "degrees", "last"),
    [(180, 1.0, 89.0), (181, 1.0, 90.0), (361, 0.5, 90.0), (360, 0.5, 89.5)],
)
def test_beams_lie_as_the_scanner_counts_them(tmp_path, beams, degrees, last):
    scan = log_of(tmp_path, laser(1.0, [1.0] * beams)).rows[0]
    assert math.degrees(scan.angle_increment) == pytest.approx(degrees)
    assert math.degrees(scan.angle_min) == pytest.approx(-90)
    end = scan.angle_min + (beams - 1) * scan.angle_increment
    assert math.degrees(end) == pytest.approx(last)


def test_rear_lasers_parameters_comments_and_other_messages(tmp_path):
    log = log_of(
        tmp_path,
        "# a comment",
        "",
        "PARAM robot_frontlaser_offset 0.2 nohost 0",
        laser(1.0, [1, 2], kind="RLASER"),
        "NEFF 10.0 0 0",
        "SYNC tag 1 host 1",
    )
    assert log.rows[0].rear
    assert log.parameters == {"robot_frontlaser_offset": "0.2"}
    assert log.left_out == {"NEFF": 1, "SYNC": 1}
    assert log.malformed == 0


def test_robot_lasers_say_themselves_where_their_beams_are(tmp_path):
    log = log_of(
        tmp_path,
        robot_laser(1.0, [1.0, 49.9, 50.0], remissions=[7, 8]),
        robot_laser(2.0, [1.0, 81.9], number=2, furthest=81.91),
    )
    front, rear = log.rows
    assert front.ranges.tolist() == [1.0, 49.9, math.inf]
    assert (front.time_s, front.angle_min, front.angle_increment) == (1.0, -1.0, 0.5)
    assert (front.pose, front.rear) == ((1.1, 2.1, 0.6), False)
    assert rear.ranges.tolist() == [1.0, math.inf]
    assert rear.rear


def test_lines_end_as_they_like_and_scans_have_as_many_beams_as_they_like(tmp_path):
    path = tmp_path / "robot.log"
    path.write_bytes(
        f"\ufeff{odom(1.0)}\r\n{laser(1.0, [1, 2])}\r{laser(1.0, [1, 2, 3])}".encode()
    )
    log = read(path)
    assert (len(log.rows), log.malformed) == (3, 0)
    assert [len(row.ranges) for row in log.rows[1:]] == [2, 3]


@pytest.mark.parametrize("wrong", ["0", "1e8", "1e9"])
def test_a_row_with_a_time_far_from_all_others_is_left_out_and_named(tmp_path, wrong):
    log = log_of(tmp_path, odom(5e8), odom(5e8 + 3600), odom(wrong), odom(5e8 + 1))
    assert [row.time_s for row in log.rows] == [5e8, 5e8 + 1, 5e8 + 3600]
    assert log.malformed == 1
    assert log.problems[0].startswith("robot.log line 3: its time ")
    assert "is more than an hour away from 3 others" in log.problems[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ODOM 1 2 3", "ODOM has 3 fields, not 9"),
        (odom(1.0, x="east"), "'east' is no number"),
        (odom("nan"), "nan is not below 1e+12"),
        (odom(1.0, x="-1e308"), "-1e308 is not below 1e+12"),
        (odom("-1"), "its time -1 is not from 0 to 2^31 s"),
        (odom("1e10"), "its time 1e10 is not from 0 to 2^31 s"),
        ("FLASER 3 1 2 0 0 0 0 0 0 1 host 1", "FLASER of 3 ranges has 12 fields, not 13"),
        ("FLASER -4 1", "FLASER says it has -4 ranges"),
        ("FLASER", "FLASER says it has no ranges"),
        (f"FLASER {'9' * 5000} 1", "line 2"),
        ("ROBOTLASER1 0 -1 3.14 0.5 50", "ROBOTLASER1 says it has no ranges"),
        (robot_laser(1.0, [1, 2])[:45], "ROBOTLASER1 says it has no remissions"),
        (robot_laser(1.0, [1, 2]) + " 1", "ROBOTLASER1 of 2 ranges and 0 remissions has 26 fields"),
        (robot_laser(1.0, [1, -2]), "range below zero"),
        (robot_laser(1.0, [1, 2], step=0.0), "begin at -1.0, 0.0 rad apart"),
        (robot_laser(1.0, [1, 2], step=4.0), "begin at -1.0, 4.0 rad apart"),
        (robot_laser(1.0, [1, 2], start=1e9), "begin at 1000000000.0"),
        (robot_laser(1.0, [1, 2], furthest=0), "reaches 0.0 m"),
        (laser(1.0, [1, -2]), "range below zero"),
        ("PARAM lonely", "PARAM needs"),
        ("\x00\x01\x02", "is no message"),
    ],
)
def test_a_malformed_line_is_reported_by_number_and_left_out(tmp_path, line, said):
    log = log_of(tmp_path, odom(1.0), line, odom(2.0))
    assert (log.malformed, len(log.rows)) == (1, 2)
    assert log.problems[0].startswith("robot.log line 2:")
    assert said in log.problems[0]


def test_many_malformed_lines_are_all_counted(tmp_path):
    log = log_of(tmp_path, odom(1.0), *["ODOM"] * 50)
    assert log.malformed == 50
    assert len(log.problems) == 20


@given(st.lists(st.text(max_size=60), max_size=20))
def test_no_text_breaks_the_reader(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("log") / "robot.log"
    path.write_text("\n".join([odom(1.0), *lines]), encoding="utf-8")
    log = read(path)
    assert OdometryRow(1.0, (0.0, 2.0, 0.5), 0.3, 0.1) in log.rows


@given(st.integers(2, 2000))
def test_beams_never_reach_beyond_half_a_turn(beams):
    assert (beams - 1) * angle_increment(beams) <= math.pi + 1e-9


def test_gzip_is_told_by_its_content_and_a_broken_one_is_refused(tmp_path):
    packed = gzip.compress((odom(1.0) + "\n").encode() * 500)
    path = tmp_path / "robot.log"
    path.write_bytes(packed)
    assert len(read(path).rows) == 500
    path.write_bytes(packed[:-20])
    with pytest.raises(BrainError, match="broken gzip"):
        read(path)
    path.write_bytes(packed[:12] + bytes(byte ^ 0xFF for byte in packed[12:40]) + packed[40:])
    with pytest.raises(BrainError, match="broken gzip"):
        read(path)


def test_no_file_and_no_rows_are_refused(tmp_path):
    with pytest.raises(BrainError, match=r"none\.log") as missing:
        read(tmp_path / "none.log")
    assert missing.value.code == ErrorCode.NOT_FOUND
    with pytest.raises(BrainError, match="holds no ODOM"):
        log_of(tmp_path, "# nothing")
    with pytest.raises(BrainError, match=r"only 2 RAWLASER1, 1 SYNC; robot.log line 4: ODOM has 0"):
        log_of(tmp_path, "RAWLASER1 1", "RAWLASER1 1", "SYNC a", "ODOM")


def test_the_intel_lab_log(shared_data):
    log = read(shared_data / "intel-lab.carmen.log.gz")
    scans = [row for row in log.rows if isinstance(row, ScanRow)]
    assert (len(scans), len(log.rows) - len(scans), log.malformed) == (910, 14541, 0)
    times = [row.time_s for row in log.rows]
    assert times == sorted(times)
    assert all(np.isfinite(scan.ranges).any() for scan in scans)
