"""How commands end: an exit code, and at most one sentence on stderr."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What scripts may rely on. 2 is also what a wrong command line gives."""

    OK = 0
    FAILED = 1
    """The job or batch failed, was cancelled or expired; or a server of `up` can't run."""
    USAGE = 2
    """The command line, a local file or a setting is wrong; nothing was sent."""
    UNREACHABLE = 3
    """The server doesn't answer, or answers that it can't work now."""
    AUTH = 4
    """No valid key for this call."""
    REFUSED = 5
    """The server understood and said no: unknown id, wrong state, invalid body."""
    INTERRUPTED = 130
    """Ctrl-C. Whatever was submitted goes on."""


EXIT_CODES_HELP = (
    "Exit codes: 0 done · 1 the job or batch did not succeed · 2 wrong usage · 3 server "
    "unreachable · 4 not authorised · 5 refused by the server · 130 interrupted."
)


class CommandError(Exception):
    """Ends the command: ``message`` goes to stderr, ``exit_code`` to the shell. ``code`` is the
    server's, where it said no."""

    def __init__(
        self, message: str, exit_code: ExitCode = ExitCode.FAILED, *, code: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code
