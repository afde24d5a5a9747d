"""The one place that knows rclpy's habits.

| module | what it holds |
| --- | --- |
| `lifecycle` | `BrainNode`, the base class of the six nodes |
| `executor` | which executor, how it is spun, and `Outgoing` for calls to other nodes |
| `main` | `run`: the life of a process that holds one or several nodes |
| `qos` | the named QoS profiles |
| `parameters` | parameters from one typed description |
| `conversions` | attributes, times, results |
"""
