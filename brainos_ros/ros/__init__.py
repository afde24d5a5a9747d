"""The one place that knows rclpy's habits.

| module | what it holds |
| --- | --- |
| `lifecycle` | `BrainNode`, the base class of the six nodes |
| `executor` | which executor, how it is spun, and `Outgoing` for calls to other nodes |
| `main` | `run`: the life of a process that holds one or several nodes |
| `qos` | the named QoS profiles |
| `parameters` | parameters from one typed description |
| `discovery` | how the processes of a brain find each other; before the first `rclpy.init` |
| `composed` | the five nodes below the watchdog in one process |
| `inline` | calls to another node in the middle of a callback, on the calling thread |
| `side` | a door for work that takes seconds |
| `conversions` | attributes, times, results |
| `decision_messages`, `genome_messages`, `world_messages` | what the rooms hold, as messages |
"""
