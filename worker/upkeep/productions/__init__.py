"""Productions on upkeep: tables, duplicates and joined results, and the chore that drives them."""
