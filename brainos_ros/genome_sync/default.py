"""The genome a robot begins with: how it drives, as `brainos_ros/robots/navigator.py` reads it."""

from brainos_ros.genome_sync.genome import Genome, scalar


def default_genome() -> Genome:
    """Speed and path following of a small indoor base, within what is safe to try."""
    return Genome(
        {
            "driving": (
                scalar("cruise_speed_mps", 1.2, 0.2, 1.5),
                scalar("lookahead_m", 0.7, 0.3, 2.0),
                scalar("turn_in_place_rad", 1.0, 0.3, 1.5),
            )
        }
    )
