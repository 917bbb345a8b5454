"""A plant in plain Python, without a clock: what its claims would do about a stated load.

The fair policy asks the very code that the claims ask (``shared.fairness``).
"""
