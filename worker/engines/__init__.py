"""Loaded models that generate, each in a child process of its own."""
