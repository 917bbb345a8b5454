"""The sandbox that looks at imported models with torch, which upkeep itself never loads."""
