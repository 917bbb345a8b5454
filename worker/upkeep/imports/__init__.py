"""Models that tenants bring: verified, rewritten, stored. Nothing of them is ever executed."""

REQUEST = "examination.json"
"""What the sandbox is told, in its folder."""
NO_LIBRARIES = 3
"""The sandbox's exit code where torch is not installed."""
