"""OpenAI's own tests of its Python package, against a live plant: ``make sdk-suite``."""
