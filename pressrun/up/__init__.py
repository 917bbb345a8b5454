"""``pressrun up``: the whole plant on one machine, in one folder."""
