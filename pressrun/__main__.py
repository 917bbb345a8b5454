"""``python -m pressrun``."""

from __future__ import annotations

from pressrun.main import main

if __name__ == "__main__":
    main()
