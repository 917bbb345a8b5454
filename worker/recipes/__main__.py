"""``python -m worker.recipes FOLDER``: one training, described by the plan in the folder."""

from __future__ import annotations

import sys

from worker.recipes.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
