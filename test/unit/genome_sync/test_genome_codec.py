"""One genome, one encoding, one hash; whatever else arrives is refused."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync import genome as module
from brainos_ros.genome_sync.genome import Gene, Genome, scalar


def sample() -> Genome:
    weights = np.arange(6, dtype="<f4").reshape(2, 3)
    return Genome(
        {
            "drive": (scalar("speed", 0.8, 0.1, 1.5), scalar("lookahead", 0.6, 0.2, 2.0)),
            "net": (Gene("layer", weights, -10.0, 10.0),),
        }
    )


def test_round_trip_and_order_do_not_change_the_hash() -> None:
    genome = sample()
    again = Genome.decode(genome.encode())
    assert again.hash == genome.hash
    assert again.parameters == {"lookahead": 0.6, "speed": 0.8}
    turned = Genome(
        {name: genome.chromosomes[name][::-1] for name in reversed(list(genome.chromosomes))}
    )
    assert turned.hash == genome.hash


def test_weights_travel_as_bytes() -> None:
    data = msgpack.unpackb(sample().encode())
    assert data[1][1][1][0][5] == np.arange(6, dtype="<f4").tobytes()


def test_big_endian_weights_have_the_same_hash() -> None:
    small = Genome({"n": (Gene("w", np.array([1.0, 2.0], "<f8"), 0.0, 3.0),)})
    big = Genome({"n": (Gene("w", np.array([1.0, 2.0], ">f8"), 0.0, 3.0),)})
    assert small.hash == big.hash


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2))
def test_a_vector_sets_the_scalars_and_nothing_else(point) -> None:
    genome = sample().with_vector(np.array(point))
    assert np.allclose(genome.vector(), point)
    layer = genome.chromosomes["net"][0].tensor
    assert np.array_equal(layer, sample().chromosomes["net"][0].tensor)


def test_a_vector_outside_the_box_ends_at_its_wall() -> None:
    genome = sample().with_vector(np.array([-3.0, 7.0]))
    assert genome.parameters == {"lookahead": 0.2, "speed": 1.5}


def bad(**change) -> bytes:
    gene = ["g", "<f8", [], 0.0, 1.0, np.float64(0.5).tobytes()]
    for index, value in change.items():
        gene[int(index[1:])] = value
    return msgpack.packb([1, [["c", [gene]]]])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x00" * 100,
        msgpack.packb({"a": 1}),
        msgpack.packb([2, []]),
        msgpack.packb([1, []]),
        bad(_0=""),
        bad(_0=7),
        bad(_1="|O"),
        bad(_1="<i8"),
        bad(_2=[2]),
        bad(_2=[-1, -1]),
        bad(_2=[1] * 9),
        bad(_3=0.9),
        bad(_3=float("nan")),
        bad(_4=float("inf")),
        bad(_5=np.float64("nan").tobytes()),
        bad(_5=b"123"),
        bad(_5="text"),
        sample().encode() + b"\x00",
        msgpack.packb([1.0, [["c", [["g", "<f8", [], 0.0, 1.0, np.float64(0.5).tobytes()]]]]]),
        msgpack.packb([1, [["c", [["g", "<f8", [], 0.0, 1.0, b"\0" * 8]] * 2]]]),
    ],
)
def test_what_is_no_canonical_genome_is_rejected(data: bytes) -> None:
    with pytest.raises(BrainError) as refused:
        Genome.decode(data)
    assert refused.value.code is ErrorCode.GENOME_REJECTED


@given(st.binary(max_size=200))
def test_noise_is_rejected(data: bytes) -> None:
    with pytest.raises(BrainError):
        Genome.decode(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_never_passes_as_the_same_genome(position: int, flip: int) -> None:
    data = bytearray(sample().encode())
    data[position % len(data)] ^= flip
    try:
        changed = Genome.decode(bytes(data))
    except BrainError:
        return
    assert changed.hash != sample().hash


def test_size_is_capped_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    for request in (lambda: Genome.decode(b"\0" * 101), lambda: sample().encode()):
        with pytest.raises(BrainError, match="limit"):
            request()


def test_values_outside_their_bounds_are_rejected() -> None:
    with pytest.raises(BrainError, match="speed"):
        scalar("speed", 2.0, 0.0, 1.0)
    with pytest.raises(BrainError, match="two genes"):
        Genome({"a": (scalar("x", 0, 0, 1),), "b": (scalar("x", 0, 0, 1),)})
