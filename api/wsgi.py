"""``gunicorn -c api/gunicorn_conf.py api.wsgi:app``."""

from __future__ import annotations

import gc
import sys

# Nothing that is made while importing is garbage: looking for it takes a sixth of the start.
gc.disable()

if "rich" not in sys.modules:
    # structlog would import it, for coloured tracebacks that no server prints: a tenth of the time.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog.dev  # noqa: F401

    del sys.modules["rich"]

from api.app import create_app  # noqa: E402
from shared.settings import load_settings  # noqa: E402
from shared.telemetry import configure_logging  # noqa: E402

settings = load_settings()
configure_logging(settings.log_level, settings.log_format, process="api")
app = create_app(settings)

gc.freeze()
gc.enable()
