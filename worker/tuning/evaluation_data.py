"""The examples that models are measured on: judged line by line, and laid out for recipes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from shared.lifecycle import BadLine
from shared.specs.fine_tuning import RecipeName
from worker.tuning.data.example import clipped
from worker.tuning.data.formats import read_items
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.source import Source
from worker.tuning.messages import DATA, TRAIN_DATA, VALIDATION_DATA
from worker.tuning.preparing import CannotTrain
from worker.upkeep.assembly import Interrupted


def lay_out(
    recipe: RecipeName,
    source: Source,
    folder: Path,
    *,
    param: str,
    most: int | None,
    interrupted: Callable[[], bool],
    limits: DataLimits | None = None,
) -> int:
    """Writes the first ``most`` examples as the validation split, and an empty training split;
    returns how many. The whole file is read: a bad line is named wherever it is.

    Raises CannotTrain, which blames ``param`` and lists the bad lines; Interrupted; OSError.
    """
    limits = limits or DataLimits()
    data = folder / DATA
    data.mkdir(parents=True, exist_ok=True)
    (data / TRAIN_DATA).write_bytes(b"")
    encode = msgspec.json.Encoder().encode
    errors: list[BadLine] = []
    bad = count = 0
    items = read_items(recipe, source.interruptible(interrupted), limits, folder)
    with closing(items), (data / VALIDATION_DATA).open("wb") as file:
        for item in items:
            if interrupted():
                raise Interrupted
            if isinstance(item, BadLine):
                bad += 1
                if len(errors) < limits.reported:
                    errors.append(clipped(item))
            elif count >= limits.rows:
                message = f"a file has at most {limits.rows} examples"
                raise CannotTrain("too_many_examples", message, param)
            elif most is None or count < most:
                file.write(encode(item.row) + b"\n")
                count += 1
    if bad:
        message = f"the examples were rejected: {bad} bad line{'s' if bad != 1 else ''}"
        raise CannotTrain("invalid_evaluation_file", message, param, errors=errors)
    if not count:
        raise CannotTrain("too_few_examples", "the file has no examples", param)
    return count


def keep_first(folder: Path, most: int | None) -> int:
    """Cuts a validation split that is there, and forgets the training split; returns how many
    examples are left."""
    data = folder / DATA
    (data / TRAIN_DATA).write_bytes(b"")
    held_out, cut = data / VALIDATION_DATA, data / f"{VALIDATION_DATA}.part"
    count = 0
    with held_out.open("rb") as lines, cut.open("wb") as file:
        for line in lines:
            if most is not None and count >= most:
                break
            file.write(line)
            count += 1
    cut.replace(held_out)
    return count
