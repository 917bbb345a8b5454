"""What makes synthetic texts differ: turns that fit any label, and people who write.

The lengths of the two lists have no common divisor, so that rows that follow each other go through
all pairs before one comes again.
"""

from __future__ import annotations

TOPICS = (
    "a first time", "something that went wrong", "a surprise", "a question", "a small detail",
    "a comparison", "the weather", "a long wait", "a price", "a number", "a place", "a person",
    "a time of day", "a memory", "a plan", "a piece of advice", "a mistake", "a change",
    "a problem that was solved", "a preference", "a habit", "a deadline", "a gift", "an object",
    "a season", "a rumour", "an opinion", "a wish", "a warning", "a word of thanks", "a doubt",
)  # fmt: skip
WRITERS = (
    "a student", "a retired teacher", "a nurse after a night shift", "a parent of three",
    "a shopkeeper", "an engineer", "a journalist", "a farmer", "a tourist", "an office clerk",
    "a musician", "a coach", "a taxi driver", "a teenager", "a scientist", "a grandparent",
    "an impatient customer",
)  # fmt: skip
LENGTHS = (1.0, 0.7, 1.4)
"""Times the length of an example that is shown."""
