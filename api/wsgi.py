"""``gunicorn -c api/gunicorn_conf.py api.wsgi:app``."""

from __future__ import annotations

from api.app import create_app
from shared.settings import load_settings
from shared.telemetry import configure_logging

settings = load_settings()
configure_logging(settings.log_level, settings.log_format, process="api")
app = create_app(settings)
