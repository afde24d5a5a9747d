from brainos_ros.memory.patterns import GAP_NS, mine


def steps(actions, reward=1.0, start=0, gap=10**9):
    return [(start + place * gap, action, reward) for place, action in enumerate(actions)]


def test_what_comes_back_three_times_is_a_pattern():
    found = {each.actions: each for each in mine(steps("abcabcabc"))}
    assert found["a", "b", "c"].occurrences == 3
    assert found["a", "b"].occurrences == 3
    assert ("a", "b", "c", "a", "b") not in found
    assert max(map(len, found)) <= 5
    assert min(map(len, found)) >= 2
    assert found["a", "b", "c"].last_seen_ns == 8 * 10**9


def test_a_pause_ends_a_sequence():
    runs = [step for n in range(3) for step in steps("ab", start=n * 10 * GAP_NS)]
    assert {each.actions for each in mine(runs)} == {("a", "b")}


def test_what_works_comes_first_and_what_keeps_failing_is_left_out():
    good = steps("abab" * 3, 0.9)
    bad = steps("xyxy" * 3, -0.9, start=10 * GAP_NS)
    found = mine([*good, *bad])
    assert found[0].effectiveness > 0.8
    assert all("x" not in each.actions for each in found)


def test_effectiveness_is_an_exponential_average():
    runs = [
        (n * 10 * GAP_NS + k, "ab"[k], 1.0 if n < 2 else -1.0) for n in range(3) for k in (0, 1)
    ]
    (pattern,) = mine(runs)
    assert pattern.effectiveness == 1.0 + 0.1 * (-1.0 - 1.0)


def test_the_same_sequence_keeps_its_id():
    first, again = mine(steps("ababab")), mine(steps("ababab", start=10**18))
    assert [each.pattern_id for each in first] == [each.pattern_id for each in again]
