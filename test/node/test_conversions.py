"""Attributes, times and results between messages and plain Python."""

import math

import pytest
from brainos_msgs.msg import Attribute
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from rcl_interfaces.msg import ParameterValue

from brainos_ros.errors import BrainError
from brainos_ros.ros.conversions import (
    attributes_to_dict,
    dict_to_attributes,
    ns_to_time,
    s_to_time,
    time_to_ns,
    time_to_s,
)

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
SCALAR = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT
)
VALUE = st.one_of(
    SCALAR,
    st.lists(st.booleans(), min_size=1),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.floats(allow_nan=False), min_size=1),
    st.lists(TEXT),
    st.binary(),
)


@given(st.dictionaries(TEXT.filter(bool), VALUE, max_size=5))
def test_a_dictionary_survives_the_way_there_and_back(values: dict) -> None:
    assert attributes_to_dict(dict_to_attributes(values), "context") == values


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("true", True),
        ("false", False),
        ("0.8", 0.8),
        ("12", 12),
        ("-3e2", -300.0),
        ("clear", "clear"),
        ("no", "no"),
        ("0042", "0042"),
        ("null", "null"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("[1, 2]", "[1, 2]"),
        ('{"a": 1}', '{"a": 1}'),
        ('"quoted"', '"quoted"'),
        ("[" * 100_000, "[" * 100_000),
        ("", ""),
    ],
)
def test_untyped_text_is_a_json_scalar_or_itself(text: str, meant: object) -> None:
    attribute = Attribute(key="a", value=ParameterValue(string_value=text))
    result = attributes_to_dict([attribute], "context")["a"]
    assert (result, type(result)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ([Attribute(value=ParameterValue(type=4))], "context[0].key is empty"),
        ([Attribute(key="a"), Attribute(key="a")], "context[1].key 'a' is repeated"),
        ([Attribute(key="a", value=ParameterValue(type=77))], "value.type 77"),
        (
            [Attribute(key="a", value=ParameterValue(double_value=0.5))],
            "sets value.double_value without value.type",
        ),
        ([Attribute(key="a", value=ParameterValue(string_value="1e999"))], "must be finite"),
        ([Attribute(key="a", value=ParameterValue(string_value="9" * 30))], "must fit 64 bits"),
    ],
)
def test_bad_attributes_are_named(attributes: list, named: str) -> None:
    with pytest.raises(BrainError) as refused:
        attributes_to_dict(attributes, "context")
    assert named in str(refused.value)


@pytest.mark.parametrize("value", [{"nested": 1}, [1, "mixed"], None, [[1]], object()])
def test_what_no_attribute_can_hold_is_refused(value: object) -> None:
    with pytest.raises(BrainError, match="attribute 'a'"):
        dict_to_attributes({"a": value})


def test_a_list_of_whole_and_real_numbers_becomes_real() -> None:
    assert attributes_to_dict(dict_to_attributes({"a": [1, 2.5]}), "x") == {"a": [1.0, 2.5]}


@given(st.integers(0, 2**31 * 1_000_000_000 - 1))
def test_times_are_exact_in_nanoseconds(ns: int) -> None:
    assert time_to_ns(ns_to_time(ns)) == ns


def test_nanoseconds_that_make_a_second_are_refused() -> None:
    with pytest.raises(BrainError, match="end: nanosec is 1000000000"):
        time_to_ns(Time(sec=1, nanosec=1_000_000_000), "end")


@given(st.floats(0, 2**31 - 1))
def test_times_in_seconds(seconds: float) -> None:
    assert math.isclose(time_to_s(s_to_time(seconds)), seconds, abs_tol=1e-6)
