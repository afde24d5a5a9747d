"""The clock for what ages, while the wall clock is stepped."""

from brainos_ros.clock import STEP_NS, Unstepped

HOUR = 3600 * 10**9


class Clocks:
    """A wall clock and a steady clock, an hour of it gone by."""

    wall, steady = 100 * HOUR, HOUR

    def make(self, least_ns: int = 0) -> Unstepped:
        return Unstepped(lambda: self.wall, lambda: self.steady, least_ns)

    def step(self, ahead: int, passed: int = 0) -> None:
        self.wall += ahead + passed
        self.steady += passed


def test_it_passes_as_the_steady_clock_and_knows_the_step() -> None:
    clocks = Clocks()
    clock = clocks.make()
    for ahead, skew in ((0, 0), (-HOUR, -HOUR), (2 * HOUR, HOUR), (-HOUR, 0)):
        before = clock.now()
        clocks.step(ahead, passed=7)
        assert (clock.now() - before, clock.skew()) == (7, skew)


def test_what_is_no_step_does_not_move_the_skew() -> None:
    clocks = Clocks()
    clock = clocks.make()
    clocks.step(HOUR)
    assert clock.skew() == HOUR
    clocks.step(STEP_NS - 1)
    assert clock.skew() == HOUR


def test_it_goes_on_where_the_steady_clock_is_reset() -> None:
    clocks = Clocks()
    clock = clocks.make()
    clocks.step(0, passed=5)
    before = clock.now()
    clocks.wall, clocks.steady = 7, 7
    assert clock.now() == before
    clocks.step(0, passed=3)
    assert (clock.now(), clock.skew()) == (before + 3, 10 - before - 3)


def test_it_begins_no_earlier_than_it_left_off() -> None:
    clocks = Clocks()
    clock = clocks.make(least_ns=101 * HOUR)
    assert (clock.now(), clock.skew()) == (101 * HOUR, -HOUR)
