"""The supervisor, the engines it keeps in child processes, and the upkeep passes. Never flask."""
