"""Starters of the real servers that tests run against: private nodes, on free ports, no root.

Each starts when a test first asks for it, and dies with pytest however pytest dies.
"""
