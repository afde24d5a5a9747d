"""CEL expressions, for rules and constraints: `from brainos_ros.expressions import cel`.

The package imports its command line along with itself, and with that a terminal toolkit: 250 ms
and 17 MB in each process that evaluates a rule. It is loaded here without.
"""

import sys
from types import ModuleType

_COMMAND_LINE = "cel.cli"

if "cel" in sys.modules:
    import cel
else:
    sys.modules[_COMMAND_LINE] = ModuleType(_COMMAND_LINE)
    try:
        import cel
    finally:
        del sys.modules[_COMMAND_LINE]

__all__ = ["cel"]
