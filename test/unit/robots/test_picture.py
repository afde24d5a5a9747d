"""The picture from above shows what it says, without a display."""

import pytest

from brainos_ros.errors import BrainError
from brainos_ros.robots.layout import hall, warehouse
from brainos_ros.robots.picture import PERSON, ROBOT, Scene, render_top_view

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def scene_of(layout):
    scene = Scene(layout)
    for i in range(100):
        scene.see((-7.0 + i * 0.1, 0.0, 0.0), {1: (2.0, -3.0 + i * 0.05), 2: (-1.0, 1.0)})
    return scene


@pytest.mark.parametrize("layout", [warehouse(), hall(-3.0, -10.0, 4.0, 4.0, False)])
def test_robot_people_and_floor_are_in_the_picture(tmp_path, layout):
    path = tmp_path / "top.png"
    render_top_view(path, scene_of(layout), "a title", ["5 deliveries", "0 contacts"], width=600)
    with Image.open(path) as picture:
        assert picture.width == 600
        colours = {colour for _, colour in picture.getcolors(picture.width * picture.height)}
    assert rgb(ROBOT) in colours and rgb(PERSON) in colours


def test_an_empty_scene_can_be_drawn(tmp_path):
    render_top_view(tmp_path / "empty.png", Scene(warehouse()), width=300)
    assert Image.open(tmp_path / "empty.png").width == 300


def test_trails_break_where_somebody_jumps_and_leave_out_standing_still():
    scene = Scene(warehouse())
    for x in (0.0, 0.1, 0.11, 5.0, 5.1):
        scene.see((0.0, 0.0, 0.0), {7: (x, 0.0)})
    assert scene.trails[7] == [[(0.0, 0.0), (0.1, 0.0)], [(5.0, 0.0), (5.1, 0.0)]]
    assert len(scene.track) == 1


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BrainError, match="picture"):
        render_top_view(tmp_path / "nowhere" / "top.png", Scene(warehouse()), width=200)
    with pytest.raises(BrainError, match="picture"):
        render_top_view(tmp_path / "top.unknown", Scene(warehouse()), width=200)
