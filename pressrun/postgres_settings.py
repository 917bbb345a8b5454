"""How the embedded Postgres is set up: for one machine, and for a log without tenants' text."""

from __future__ import annotations

from pathlib import Path

SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A tenant's text must not reach the log: neither statements nor the DETAIL of an error.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    # Parallel plans need /dev/shm, which containers keep too small, and gain nothing here.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
}
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")


def server_options(
    pgdata: Path, socket_dir: Path, port: int, *, tcp: bool, fsync: bool
) -> list[str]:
    """The command line of ``postgres``; it wins over the files in the cluster."""
    # The setting is a list, in which quotes keep spaces and commas.
    quoted = str(socket_dir).replace('"', '""')
    settings = {
        **SETTINGS,
        **dict.fromkeys(DURABILITY, "on" if fsync else "off"),
        "unix_socket_directories": f'"{quoted}"',
        "unix_socket_permissions": "0700",
        "listen_addresses": "127.0.0.1" if tcp else "",
    }
    options = ["-D", str(pgdata), "-p", str(port)]
    for name, value in settings.items():
        options += ["-c", f"{name}={value}"]
    return options
