"""The five nodes below the watchdog in one process: a sixth of the memory, one fate."""

from brainos_ros.conscience.node import ConscienceNode
from brainos_ros.genome_sync.node import GenomeSyncNode
from brainos_ros.memory.node import MemoryNode
from brainos_ros.pfc.node import PfcNode
from brainos_ros.ros.main import run
from brainos_ros.world_model.node import WorldModelNode


def main() -> None:
    """Entry point of the `composed` executable."""
    run(ConscienceNode, MemoryNode, WorldModelNode, GenomeSyncNode, PfcNode)
