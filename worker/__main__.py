"""``python -m worker --pools text,image``: one worker process."""

from __future__ import annotations

import argparse
import sys

from shared.settings import SettingsError, load_settings
from shared.telemetry import configure_logging


def main() -> int:
    """Exit code 0 after a drain, 2 when the settings are wrong."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Serve pools of work.")
    parser.add_argument(
        "--pools", help="comma-separated: text, train, upkeep, … (default: PRESSRUN_POOLS)"
    )
    arguments = parser.parse_args()
    try:
        settings = load_settings()
    except SettingsError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    pools = [
        pool.strip() for pool in (arguments.pools or settings.pools).split(",") if pool.strip()
    ]
    if not pools:
        parser.error("name at least one pool")
    configure_logging(settings.log_level, settings.log_format, process="worker")
    from worker.app import Worker

    Worker(settings, pools).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
