"""Reads a fine-tuning's uploads once and says everything that is wrong or odd about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from shared.lifecycle import BadLine
from shared.specs.fine_tuning import MIN_EXAMPLES, FineTuningSpec, RecipeName
from worker.tuning.data.examined import Examined
from worker.tuning.data.example import Example, Refused, clipped
from worker.tuning.data.formats import CLASSIFIERS, read_items
from worker.tuning.data.images import Pictures
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.source import Source
from worker.tuning.data.split import held_out_count
from worker.tuning.data.tally import Tally, histogram, order_of
from worker.upkeep.assembly import Interrupted

LONG_TOKENS = 4_096
"""An example above it is worth a warning when nothing says how many tokens are kept."""
IMBALANCE = 20
"""Times that the most frequent label may outnumber the rarest one without a warning."""
OUTSIDE = "O"
"""The tag of tokens that are part of nothing: always the most frequent."""
NAMED_LABELS = 5


def examine(
    recipe: RecipeName,
    spec: FineTuningSpec,
    training: Source,
    validation: Source | None,
    interrupted: Callable[[], bool],
    *,
    limits: DataLimits | None = None,
    scratch: Path | None = None,
) -> Examined:
    """Reads each upload once, in bounded memory (a ZIP by way of a temporary file in ``scratch``).

    Raises Interrupted, DecoderMissing, OSError and what reading the sources raises; whatever is
    wrong with the data is in the answer.
    """
    with Pictures() as pictures:
        return _Examiner(
            recipe,
            spec,
            limits=limits or DataLimits(),
            scratch=scratch,
            pictures=pictures,
            interrupted=interrupted,
        ).run(training, validation)


class _Examiner:
    def __init__(
        self,
        recipe: RecipeName,
        spec: FineTuningSpec,
        *,
        limits: DataLimits,
        scratch: Path | None,
        pictures: Pictures,
        interrupted: Callable[[], bool],
    ) -> None:
        self._recipe = recipe
        self._spec = spec
        self._limits = limits
        self._scratch = scratch
        self._pictures = pictures
        self._interrupted = interrupted
        self._digest = sha256()
        self._errors: list[BadLine] = []
        self._bad_lines = 0
        self._labels_known = False
        """Whether the training file's labels are all counted: a bad line may hide one."""

    def run(self, training: Source, validation: Source | None) -> Examined:
        tally = self._read(training, None)
        self._labels_known = self._bad_lines == 0
        validating = None if validation is None else self._read(validation, tally)
        self._judge_whole(tally, validating)
        held_out = held_out_count(tally.examples, self._spec.validation_split)
        sizes = training.size + (validation.size if validation else 0)
        return Examined(
            recipe=self._recipe,
            errors=self._errors,
            bad_lines=self._bad_lines,
            examples=tally.examples - (held_out if validating is None else 0),
            validation_examples=held_out if validating is None else validating.examples,
            held_out=validating is None,
            warnings=[] if self._bad_lines else _warnings(tally, validating),
            format=tally.form,
            validation_format=validating.form if validating else "",
            fields=tally.fields,
            labels={label: tally.labels[label] for label in order_of(tally.labels)},
            characters=tally.characters,
            tokens=tally.tokens,
            longest_tokens=tally.longest,
            lengths=histogram(tally.lengths),
            sides=histogram(tally.sides),
            bytes=sizes,
            digest=self._digest.hexdigest(),
        )

    def _read(self, source: Source, training: Tally | None) -> Tally:
        """``training`` is the training file's tally when ``source`` is the validation file."""
        tally = Tally(self._limits, long_over=self._long_over())
        # A ZIP is copied, or read where it lies: its bytes then pass by nobody who could hash them.
        by_name = source.path is not None and source.suffix == ".zip"
        seen = source if by_name else replace(source, open_chunks=lambda: self._hashed(source))
        if by_name:
            for _ in self._hashed(source):
                pass
        seen = seen.interruptible(self._interrupted)
        with closing(read_items(self._recipe, seen, self._limits, self._scratch)) as items:
            for item in items:
                if self._interrupted():
                    raise Interrupted
                if isinstance(item, BadLine):
                    self._refuse(item, training)
                elif tally.examples == self._limits.rows:
                    message = f"a file has at most {self._limits.rows} examples"
                    self._refuse(BadLine("too_many_examples", message), training)
                    break
                else:
                    self._judge(item, tally, training)
        return tally

    def _hashed(self, source: Source) -> Iterator[bytes]:
        for chunk in source.open_chunks():
            self._digest.update(chunk)
            yield chunk

    def _judge(self, example: Example, tally: Tally, training: Tally | None) -> None:
        try:
            picture = size = None
            if example.picture is not None:
                picture = example.picture()
                size = self._pictures.check(picture)
            if training is not None and self._labels_known:
                self._check_labels(example, training)
            tally.add(example, picture, size)
        except Refused as refusal:
            self._refuse(refusal.bad_line(example.line, example.member), training)

    def _check_labels(self, example: Example, training: Tally) -> None:
        for label in example.labels:
            if label not in training.labels:
                message = f"no training example has the label '{label}'"
                raise Refused("unknown_label", message, "label")

    def _refuse(self, error: BadLine, training: Tally | None) -> None:
        """Of the validation file when there is a tally of the training file already."""
        self._bad_lines += 1
        if len(self._errors) < self._limits.reported:
            if training is not None:
                error = replace(error, message=f"validation file: {error.message}")
            self._errors.append(clipped(error))

    def _judge_whole(self, tally: Tally, validating: Tally | None) -> None:
        """What no single line is to blame for; said when the lines are all right."""
        if self._bad_lines:
            return
        if tally.examples < MIN_EXAMPLES:
            message = f"the file has {tally.examples} examples, {MIN_EXAMPLES} are the fewest"
            self._refuse(BadLine("too_few_examples", message), None)
        if self._recipe in CLASSIFIERS and tally.examples and len(tally.labels) < 2:  # noqa: PLR2004
            message = "a classifier needs at least 2 labels"
            self._refuse(BadLine("too_few_labels", message), None)
        if validating is not None and not validating.examples:
            self._refuse(BadLine("too_few_examples", "the file has no examples"), tally)

    def _long_over(self) -> int:
        if self._recipe in _CUT_TEXTS:
            given = self._spec.options.hyperparameters.max_length
            return LONG_TOKENS if given == "auto" else given
        return 0


_CUT_TEXTS = frozenset({"supervised", "dpo", "text_classification", "token_classification"})
"""Recipes whose examples are cut at ``max_length``."""


def _warnings(tally: Tally, validating: Tally | None) -> list[str]:
    found = []
    if tally.repeated:
        found.append(
            _said(tally.repeated, "training example", "repeats", "repeat") + " another one"
        )
    if validating is not None and (shared := validating.shared_with(tally)):
        found.append(_said(shared, "validation example", "is", "are") + " in the training file too")
    if imbalance := _imbalance(tally.labels):
        found.append(imbalance)
    if tally.long_examples:
        said = _said(tally.long_examples, "training example", "is", "are")
        found.append(f"{said} longer than about {tally.long_over} tokens, and may be cut")
    if tally.loose_tags:
        found.append(
            _said(tally.loose_tags, "sentence", "has", "have") + " an I- tag without its B-"
        )
    return found


def _said(number: int, what: str, one: str, many: str) -> str:
    return f"1 {what} {one}" if number == 1 else f"{number} {what}s {many}"


def _imbalance(labels: Counter[str]) -> str | None:
    counted = {label: count for label, count in labels.items() if label != OUTSIDE}
    if not counted:
        return None
    most, fewest = max(counted.values()), min(counted.values())
    if most <= IMBALANCE * fewest:
        return None
    rare = sorted(label for label, count in counted.items() if most > IMBALANCE * count)
    named = ", ".join(f"'{label}'" for label in rare[:NAMED_LABELS])
    others = f" and {len(rare) - NAMED_LABELS} more" if len(rare) > NAMED_LABELS else ""
    common = min(label for label, count in counted.items() if count == most)
    return f"'{common}' has over {IMBALANCE} times the examples of {named}{others}"
