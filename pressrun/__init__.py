"""The command line: one machine with everything on it, and the tools around it."""
