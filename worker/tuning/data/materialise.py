"""Writes a fine-tuning's data as recipes read it, whatever the tenant uploaded.

    <folder>/data/train.jsonl, validation.jsonl    an example a line
                 /images/000001.png, …             RGB, upright (see ``decoder``)

supervised            {"messages": [{"role", "content"}, …]}, {"prompt", "completion"} or {"text"}
dpo                   {"prompt": [messages], "chosen": [messages], "rejected": [messages]}
text_classification   {"text", "label"}
token_classification  {"tokens": [...], "tags": [...]}
text_to_image         {"image": "images/000001.png", "caption"}
diffusion, gan, vae   {"image", "label": text or null}

A message of the assistant may carry ``"weight": 0``: it is read and not learned.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from shared.lifecycle import BadLine
from shared.specs.fine_tuning import FineTuningSpec, RecipeName
from worker.tuning.data.example import Example, Refused
from worker.tuning.data.formats import STRATIFIED, read_items
from worker.tuning.data.images import Pictures
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.source import Source
from worker.tuning.data.split import hold_out
from worker.tuning.data.tally import order_of
from worker.tuning.messages import DATA, TRAIN_DATA, VALIDATION_DATA
from worker.upkeep.assembly import Interrupted

IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Materialised:
    """What lies in the folder now."""

    labels: list[str]
    """Every label or tag of the training file, sorted."""
    examples: int
    """Lines of ``train.jsonl``."""
    validation_examples: int


class DataChanged(Exception):
    """An upload is no longer what it was when it was examined; no other attempt would help."""

    code = "invalid_training_file"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def materialise(  # noqa: PLR0917 - the caller of a training has all of them at hand
    recipe: RecipeName,
    spec: FineTuningSpec,
    training: Source,
    validation: Source | None,
    folder: Path,
    seed: int,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    limits: DataLimits | None = None,
    scratch: Path | None = None,
) -> Materialised:
    """Fills ``folder``/data, writing over what an earlier attempt left there.

    Without a validation file a share of the training file is held out, chosen by ``seed`` alone,
    with as many of each label in both parts as fits. Raises DataChanged for data that ``examine``
    would refuse, Interrupted, DecoderMissing, OSError and what reading the sources raises.
    """
    data = folder / DATA
    (data / IMAGES).mkdir(parents=True, exist_ok=True)
    with Pictures() as pictures:
        writer = _Writer(
            recipe,
            data,
            pictures=pictures,
            interrupted=interrupted,
            limits=limits or DataLimits(),
            scratch=scratch,
        )
        found = writer.survey(training)
        held = bytearray(len(found.classes))
        if validation is None:
            held = hold_out(found.classes, spec.validation_split, seed)
        writer.write(training, held)
        if validation is not None:
            writer.write(validation, None)
        return writer.done(found.labels)


@dataclass(slots=True)
class _Survey:
    """What has to be known of a file before its first line is written."""

    classes: Sequence[int]
    """A number for each example's label; 0 where examples have none or several."""
    labels: list[str]


class _Writer:
    def __init__(
        self,
        recipe: RecipeName,
        data: Path,
        *,
        pictures: Pictures,
        interrupted: Callable[[], bool],
        limits: DataLimits,
        scratch: Path | None,
    ) -> None:
        self._recipe = recipe
        self._data = data
        self._pictures = pictures
        self._interrupted = interrupted
        self._limits = limits
        self._scratch = scratch
        self._encode = msgspec.json.Encoder().encode
        self._images = 0
        self._lines = {TRAIN_DATA: 0, VALIDATION_DATA: 0}
        for name in self._lines:
            (data / name).write_bytes(b"")

    def survey(self, source: Source) -> _Survey:
        """Reads everything but the pictures."""
        numbers: dict[str, int] = {}
        classes = array("L")
        for example in self._examples(source):
            for label in example.labels:
                numbers.setdefault(label, len(numbers))
            single = self._recipe in STRATIFIED and example.labels
            classes.append(numbers[example.labels[0]] if single else 0)
        return _Survey(classes, order_of(list(numbers)))

    def write(self, source: Source, held_out: bytearray | None) -> None:
        """Adds the examples to the two files; None: all are for validation."""
        with ExitStack() as stack:
            files = {
                name: stack.enter_context((self._data / name).open("ab")) for name in self._lines
            }
            for place, example in enumerate(self._examples(source)):
                validates = held_out is None or held_out[place]
                name = VALIDATION_DATA if validates else TRAIN_DATA
                self._add(example, files[name])
                self._lines[name] += 1

    def _add(self, example: Example, file: BinaryIO) -> None:
        row = example.row
        if example.picture is not None:
            self._images += 1
            name = f"{IMAGES}/{self._images:06}.png"
            try:
                self._pictures.convert(example.picture(), self._data / name)
            except Refused as refusal:
                raise _changed(refusal.bad_line(example.line, example.member)) from None
            row = {"image": name} | row
        file.write(self._encode(row) + b"\n")

    def _examples(self, source: Source) -> Iterator[Example]:
        source = source.interruptible(self._interrupted)
        with closing(read_items(self._recipe, source, self._limits, self._scratch)) as items:
            for item in items:
                if self._interrupted():
                    raise Interrupted
                if isinstance(item, BadLine):
                    raise _changed(item)
                yield item

    def done(self, labels: list[str]) -> Materialised:
        if not all(self._lines.values()):
            raise DataChanged("there are too few examples to train and to validate")
        return Materialised(labels, self._lines[TRAIN_DATA], self._lines[VALIDATION_DATA])


def _changed(error: BadLine) -> DataChanged:
    place = "" if error.line is None else f"line {error.line}: "
    return DataChanged(f"{place}{error.message}", param=error.param)
