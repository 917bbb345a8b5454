"""What the API and the workers both need: words, rules, storage, the database.

Never torch, never flask.
"""
