"""A policy genome: chromosomes of genes, each a bounded tensor, and its one canonical encoding.

Encoding (MessagePack, https://github.com/msgpack/msgpack/blob/master/spec.md): the array
`[1, [[chromosome, [[gene, dtype, shape, low, high, bytes], …]], …]]`, names sorted, weights as
little-endian bytes in C order. The genome hash is the SHA-256 of these bytes, so equal content has
an equal hash on every machine; fitness, generation and times are not part of it.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from brainos_ros.errors import BrainError, ErrorCode

Tensor = NDArray[np.floating[Any]]

FORMAT = 1
MAX_BYTES = 16 * 2**20
MAX_GENES = 4_096
MAX_DIMENSIONS = 8
MAX_NAME = 255
DTYPES: dict[str, np.dtype[np.floating[Any]]] = {"<f4": np.dtype("<f4"), "<f8": np.dtype("<f8")}


def _rejected(message: str) -> BrainError:
    return BrainError(message, ErrorCode.GENOME_REJECTED)


@dataclass(frozen=True, eq=False)
class Gene:
    """A named tensor (float32 or float64) whose every element lies in [`low`, `high`]."""

    name: str
    tensor: Tensor
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_NAME or not self.name.isprintable():
            raise _rejected(f"gene name is {self.name[:40]!r}: give 1 to {MAX_NAME} characters")
        kind = self.tensor.dtype.newbyteorder("<").str
        if kind not in DTYPES:
            raise _rejected(f"gene {self.name} has type {kind}: give float32 or float64")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise _rejected(f"gene {self.name} has bounds [{self.low}, {self.high}]: none or empty")
        if self.tensor.ndim > MAX_DIMENSIONS:
            raise _rejected(f"gene {self.name} has {self.tensor.ndim} dimensions: 8 are the limit")
        wide = self.tensor.astype(np.float64)  # a bound may be beyond float32
        if not bool(((wide >= self.low) & (wide <= self.high)).all()):
            raise _rejected(f"gene {self.name} leaves its bounds [{self.low:g}, {self.high:g}]")
        frozen = np.array(self.tensor, dtype=DTYPES[kind], order="C")
        frozen.flags.writeable = False
        object.__setattr__(self, "tensor", frozen)

    @property
    def is_scalar(self) -> bool:
        """True if it holds one number, which evolution may move and a robot uses by name."""
        return self.tensor.ndim == 0


@dataclass(frozen=True, eq=False)
class Genome:
    """Chromosomes by name, each a tuple of genes; gene names are unique in the whole genome."""

    chromosomes: Mapping[str, tuple[Gene, ...]]

    def __post_init__(self) -> None:
        names = [gene.name for gene in self.genes()]
        if not 0 < len(names) <= MAX_GENES:
            raise _rejected(f"genome has {len(names)} genes: give 1 to {MAX_GENES}")
        if len(set(names)) != len(names):
            raise _rejected("genome has two genes of one name")
        if not all(0 < len(name) <= MAX_NAME for name in self.chromosomes):
            raise _rejected(f"chromosome names need 1 to {MAX_NAME} characters")

    def genes(self) -> Iterator[Gene]:
        """All genes, chromosomes and genes by name."""
        for name in sorted(self.chromosomes):
            yield from sorted(self.chromosomes[name], key=lambda gene: gene.name)

    @property
    def parameters(self) -> dict[str, float]:
        """The scalar genes: value by name."""
        return {gene.name: float(gene.tensor) for gene in self.genes() if gene.is_scalar}

    def vector(self) -> NDArray[np.float64]:
        """The scalar genes as one vector in the unit box, in the order of `genes`."""
        scalars = [gene for gene in self.genes() if gene.is_scalar]
        return np.array([(float(g.tensor) - g.low) / (g.high - g.low) for g in scalars])

    def with_vector(self, point: NDArray[np.float64]) -> "Genome":
        """The same genome with its scalar genes at `point` of the unit box."""
        values = iter(np.clip(point, 0.0, 1.0))
        moved = {
            gene.name: Gene(gene.name, _scaled(gene, next(values)), gene.low, gene.high)
            for gene in self.genes()
            if gene.is_scalar
        }
        return Genome(
            {
                name: tuple(moved.get(gene.name, gene) for gene in genes)
                for name, genes in self.chromosomes.items()
            }
        )

    def encode(self) -> bytes:
        """The canonical encoding; raises GENOME_REJECTED beyond 16 MiB."""
        data: bytes = msgpack.packb(
            [
                FORMAT,
                [
                    [name, [_pack(gene) for gene in sorted(genes, key=lambda gene: gene.name)]]
                    for name, genes in sorted(self.chromosomes.items())
                ],
            ]
        )
        if len(data) > MAX_BYTES:
            raise _rejected(f"genome takes {len(data)} bytes: {MAX_BYTES} are the limit")
        return data

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical encoding, hex."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def decode(cls, data: bytes) -> "Genome":
        """Read a canonical encoding; raises GENOME_REJECTED for anything else, whatever it is."""
        if len(data) > MAX_BYTES:
            raise _rejected(f"genome takes {len(data)} bytes: {MAX_BYTES} are the limit")
        try:
            version, chromosomes = msgpack.unpackb(
                data, max_array_len=MAX_GENES, max_map_len=0, max_ext_len=0
            )
            if version != FORMAT:
                raise _rejected(f"genome has format {version}: this robot reads {FORMAT}")
            genome = cls({name: tuple(map(_unpack, genes)) for name, genes in chromosomes})
            canonical = genome.encode()
        except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
            raise _rejected(f"genome cannot be read: {error}") from None
        if canonical != data:
            raise _rejected("genome is not in its canonical encoding")
        return genome


def _scaled(gene: Gene, fraction: float) -> Tensor:
    value = np.asarray(gene.low + fraction * (gene.high - gene.low), dtype=gene.tensor.dtype)
    return np.clip(value, gene.low, gene.high)


def _pack(gene: Gene) -> list[Any]:
    tensor = gene.tensor
    shape = list(tensor.shape)
    return [gene.name, tensor.dtype.str, shape, gene.low, gene.high, tensor.tobytes()]


def _unpack(item: list[Any]) -> Gene:
    name, kind, shape, low, high, data = item
    if not isinstance(name, str) or not isinstance(low, float) or not isinstance(high, float):
        raise _rejected("gene has a name that is no text or bounds that are no numbers")
    tensor = np.frombuffer(data, dtype=DTYPES[kind])
    if math.prod(shape) != tensor.size or any(side < 0 for side in shape):
        raise _rejected(f"gene {name} has {tensor.size} numbers, but its shape says {shape}")
    return Gene(name, tensor.reshape(shape), low, high)


def scalar(name: str, value: float, low: float, high: float) -> Gene:
    """A gene of one number."""
    return Gene(name, np.array(value, dtype="<f8"), float(low), float(high))
