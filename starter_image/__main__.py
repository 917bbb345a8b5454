"""``python -m starter_image``: trains the starter image model, from its data to its card."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from starter_image.checkpoints import CheckpointError
from starter_image.icons import DataError
from starter_image.plan import Plan
from starter_image.stages import Run, run

_ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> int:
    """0 when the model is there, 1 with one line on stderr otherwise, 130 when interrupted."""
    given = _parser().parse_args(arguments)
    try:
        run(Run(given.work, given.out, _plan(given), _report))
    except (DataError, CheckpointError, OSError) as error:
        print(f"starter image: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("starter image: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    plan = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m starter_image",
        description="Trains the starter image model: data, autoencoder, denoiser, export, score, "
        "card. What is done is not done again; an interrupted training continues from its last "
        "checkpoint.",
    )
    parser.add_argument(
        "--work", type=Path, default=_ROOT / ".starter-image", metavar="DIR",
        help="data and checkpoints (default: .starter-image)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=_ROOT / "starter_image" / "model", metavar="DIR",
        help="the finished model (default: starter_image/model)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=_count, default=plan.denoiser.schedule.steps, metavar="N",
        help="of the denoiser (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--more-steps", type=int, default=plan.denoiser.refining.steps, metavar="N",
        help="of a second training of the denoiser, after the first (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--autoencoder-steps", type=_count, default=plan.autoencoder.schedule.steps, metavar="N",
        help="of the autoencoder (default: %(default)s)",
    )  # fmt: skip
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _plan(given: argparse.Namespace) -> Plan:
    plan = Plan()
    first, second = plan.autoencoder, plan.denoiser
    return replace(
        plan,
        autoencoder=replace(first, schedule=replace(first.schedule, steps=given.autoencoder_steps)),
        denoiser=replace(
            second,
            schedule=replace(second.schedule, steps=given.steps),
            refining=replace(second.refining, steps=max(0, given.more_steps)),
        ),
    )


def _report(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
