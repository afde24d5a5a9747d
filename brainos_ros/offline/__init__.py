"""Without a network: what outside the robot answers. A library; the watchdog asks it."""
