"""BrainOS: a robot's cognitive layer as separate ROS 2 lifecycle nodes."""

__version__ = "0.1.0"
