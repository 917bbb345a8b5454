"""``pressrun demo``: a small batch from two templates and two tables, from start to end."""
