"""Where outgoing requests may go. Pure: nothing here resolves a name or opens a connection.

``targets`` judges what a tenant wrote, ``addresses`` what a name turned out to stand for. The API
asks the first when a URL is given, the worker asks both before it connects.
"""

from __future__ import annotations

from shared.egress.addresses import may_connect
from shared.egress.targets import AllowedHosts, Target, parse_allowed, parse_target

__all__ = ["AllowedHosts", "Target", "may_connect", "parse_allowed", "parse_target"]
