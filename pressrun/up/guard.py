"""A process that outlives `pressrun up` by an instant, to end what a ``kill -9`` of it leaves.

Run as a file, with nothing but the standard library. It reads ``+GROUP`` and ``-GROUP`` lines; at
the end of its input (`up` is gone, however that came) it kills the process groups still listed.
It inherits the data folder's lock, so that a successor starts when all of that is done.
"""

import contextlib
import os
import signal
import sys

DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
