"""``gunicorn -c api/gunicorn_conf.py api.wsgi:app``."""

from __future__ import annotations

import gc
import sys

# Nothing that is made while importing is garbage: looking for it takes a sixth of the start.
gc.disable()

# structlog would import them, for coloured tracebacks that no server prints: a tenth of the time.
hidden = {"rich", "colorama"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
import structlog.dev  # noqa: E402, F401

for name in hidden:
    del sys.modules[name]

from api.app import create_app  # noqa: E402
from shared.settings import load_settings  # noqa: E402
from shared.telemetry import configure_logging  # noqa: E402

settings = load_settings()
configure_logging(settings.log_level, settings.log_format, process="api")
app = create_app(settings)

gc.freeze()
gc.enable()
