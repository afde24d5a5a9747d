"""Standard output, of which it is known whether it took what was printed."""

import os
import sys


def put_out(text: str = "") -> None:
    """Print `text` and what waits in the buffer.

    Raises:
        OSError: it cannot be printed. It is dropped, or Python would try again at its end.
    """
    if sys.stdout is None:  # whoever called closed it
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
