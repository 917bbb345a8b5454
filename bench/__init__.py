"""Speed and memory of the whole plant, each beside a plain alternative: ``python -m bench``."""
