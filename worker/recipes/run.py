"""From a plan to a model: the story of one training process.

With several processes, each is told its place by the variables that torch and accelerate read:
``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``; without them there is
one. Torch is imported once the plan is read and its recipe is known to need it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import traceback
from pathlib import Path

from worker.recipes.registry import RECIPES, STANDALONE, STORIES, find
from worker.recipes.reporting import Reporter
from worker.recipes.shape import RecipeError
from worker.tuning.messages import Failed, Plan, read_plan

_PATIENT_THREADS = ("OMP_WAIT_POLICY", "passive")
"""Read by OpenMP when torch is loaded. Its threads spin while they wait for one another, which on
cores that are shared with other work took half the processor's time and made steps a third longer.
"""
_OUT_OF_MEMORY = "the training does not fit into memory: a smaller batch_size, a smaller "
_OUT_OF_MEMORY += "max_length or more gradient_accumulation may help"


def main(argv: list[str]) -> int:
    """0 when it has finished or stopped; 1 when it has said ``Failed``, and what other processes
    it has must not wait for it; 2 for a wrong command line."""
    if len(argv) != 1:
        print("usage: python -m worker.recipes FOLDER", file=sys.stderr)
        return 2
    die_with_parent()
    os.environ.setdefault(*_PATIENT_THREADS)
    folder = Path(argv[0]).resolve()
    plan = read_plan(folder)
    if plan.recipe in STANDALONE:
        return int(find(plan.recipe, STANDALONE)(folder) or 0)
    return run(folder, plan)


def run(folder: Path, plan: Plan) -> int:
    """One process's part. Whatever goes wrong is said in ``Failed``, by whichever process it
    happens to; the traceback goes to the log."""
    first = os.environ.get("RANK", "0") == "0"
    try:
        if plan.recipe in STORIES:
            find(plan.recipe, STORIES)(folder, plan, Reporter(folder, main=first))
            return 0
        if plan.recipe not in RECIPES:
            message = f"there is no recipe '{plan.recipe}'"
            raise RecipeError("unknown_recipe", message, "request", "method")
        from worker.recipes.story import tell

        tell(folder, plan, Reporter(folder, main=first))
    except Exception as error:
        traceback.print_exc()
        Reporter(folder).send(failure(error))
        return 1
    return 0


def failure(error: Exception) -> Failed:
    """What the tenant is told; of surprises the type only, for their text may hold data."""
    if isinstance(error, RecipeError):
        return Failed(error.code, error.message, error.blame, error.param)
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return Failed("out_of_memory", _OUT_OF_MEMORY)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Failed("disk_full", "the worker has no room left on its disk")
    return Failed("internal_error", f"the training failed with {type(error).__name__}")


def die_with_parent() -> None:
    """Linux kills this process when the one that started it dies, however it dies."""
    if sys.platform == "linux":
        parent = os.getppid()
        pr_set_pdeathsig = 1
        if ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != parent:
            os._exit(1)


def _is_torch_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    words = "can't allocate memory"  # what torch's CPU allocator says in a RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or words in str(error)
