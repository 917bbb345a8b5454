"""What the API and the workers both need: words, rules, storage and the database. Never torch, never flask."""
