"""The training loop that all recipes share: ``for batch in loop.batches(): …``.

A recipe computes losses; the loop does what comes with a step. A step's rows and random numbers are
functions of seed, step and rank, the learning rate one of the step, so nothing but weights, moments
and a few numbers has to be kept to go on exactly.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from worker.recipes.auto import schedule
from worker.recipes.best import Best
from worker.recipes.checkpoints import fingerprint, read_checkpoint, write_checkpoint
from worker.recipes.context import Context
from worker.recipes.optimizers import Optimizers
from worker.recipes.order import microbatches, step_rows
from worker.recipes.seeding import seed_everything
from worker.recipes.shape import Batch, Recipe
from worker.recipes.state import Progress, buffers, finite, restore_weights, weights
from worker.recipes.step_numbers import StepNumbers
from worker.tuning.messages import STOP, Saved


class Loop:
    """``stopped`` says, after ``batches``, that it was asked to stop and what is done is saved."""

    def __init__(self, context: Context, recipe: Recipe) -> None:
        self.context, self._recipe = context, recipe
        self.trained = recipe.trained()
        self.numbers = context.hyperparameters
        self._optimizers = Optimizers(self.trained, self.numbers, context.accelerator)
        self.progress = Progress(fingerprint=self._fingerprint())
        self._best = Best(context, self.trained, self.progress)
        self._step_numbers = StepNumbers(context)
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._microbatches = 1
        self.stopped = False

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.numbers.steps

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.progress.step

    def resume(self, checkpoint: Path) -> None:
        """Goes on from a checkpoint's folder. Raises RecipeError."""
        restored = read_checkpoint(checkpoint, self.progress.fingerprint)
        restore_weights(self.trained, restored.tensors)
        self._optimizers.restore(
            {
                name.removeprefix("optimizer/"): tensor
                for name, tensor in restored.tensors.items()
                if name.startswith("optimizer/")
            }
        )
        self._optimizers.restore_scaler(restored.progress.scaler)
        self.progress = restored.progress
        self._saved_step = self.progress.step
        self._best.restore(self.progress, checkpoint)

    def batches(self) -> Iterator[Batch]:
        """Each of the steps that are left. Between two of them: numbers are reported, the
        validation split is looked at, checkpoints are saved, and a wish to stop is obeyed."""
        self._step_numbers.begin(self.progress)
        while self.step < self.steps and not self.progress.ended and not self.stopped:
            step = self.step + 1
            batch = self._batch(step)
            self._microbatches = len(batch.microbatches)
            self._set_training(True)
            seed_everything(self.context.plan.seed, step, self.context.rank)
            self._step_numbers.begin_step()
            yield batch
            self._end_step(batch)
        self._set_training(False)

    def backward(self, loss: torch.Tensor, *, share: float | None = None) -> None:
        """Adds the loss's gradients to the step's.

        Without ``share`` the loss is a mean over a microbatch, and the step's is the mean of those.
        With it, the step's loss is the sum of loss × share over everything that all processes pass:
        shares are parts of 1, such as tokens here ÷ tokens of ``batch.rows``.
        """
        part = 1 / self._microbatches if share is None else share * self.context.processes
        self._step_numbers.add_loss(loss.detach(), part)
        self.context.accelerator.backward(loss * part)

    def update(self, name: str = "model") -> None:
        """One update of an optimizer from the gradients so far, over all processes; then *all*
        gradients are dropped."""
        norm = self._optimizers.step(name, self.rate)
        self._step_numbers.set(("" if name == "model" else f"{name}_") + "grad_norm", norm)

    @property
    def rate(self) -> float:
        """The learning rate of the step that is being made."""
        kind, warmup = self.numbers.lr_schedule, self.numbers.warmup_ratio
        share = schedule(kind, self.step + 1, self.steps, warmup)
        return self.numbers.learning_rate * share

    def report(self, **values: float | torch.Tensor) -> None:
        """Numbers of this step: the mean over calls and processes is shown, except of ``tokens``,
        which add up. Every process reports the same names. ``train_loss`` is known already unless
        it is given here."""
        self._step_numbers.add(values)

    def promote_best(self) -> int:
        """Brings the best weights back, when the last are not they; returns their step."""
        return self._best.promote()

    def save(self) -> None:
        """A checkpoint of the step that is done, unless there is one."""
        self._saved_at = time.monotonic()
        if self._saved_step == self.step:
            return
        self._saved_step = self.step
        if not self.context.main:
            return
        self.progress.scaler = self._optimizers.scaler_state()
        self.progress.sections = self.context.sections
        moments = {f"optimizer/{name}": t for name, t in self._optimizers.tensors().items()}
        folder = write_checkpoint(
            self.context.folder,
            tensors=weights(self.trained) | moments,
            progress=self.progress,
            write_model=self._recipe.save_checkpoint,
            history=self.context.reporter.history,
            files=self.context.files,
            best=self._best.file,
        )
        self._step_numbers.set("checkpoint_seconds", time.monotonic() - self._saved_at)
        metrics = finite(_of_training(self.progress.newest) | self.progress.evaluated)
        best = self._best.is_newest
        self.context.reporter.send(Saved(self.step, str(folder), metrics, best=best))

    def evaluate(self) -> dict[str, float]:
        """Measures the validation split now; the same numbers on every process. Modules are left
        in evaluation mode."""
        self._set_training(False)
        self._share_buffers()
        with torch.no_grad():
            measured = self.context.agreed(self._recipe.evaluate())
        self.progress.evaluated, self.progress.evaluated_step = measured, self.step
        return measured

    def stop_before_start(self) -> bool:
        """Whether it is asked to stop before its first step; the same on every process."""
        (self.stopped,) = self.context.first_says(self._stop_wanted())
        return self.stopped

    # --- between two steps --------------------------------------------------------------------

    def _batch(self, step: int) -> Batch:
        numbers, context = self.numbers, self.context
        examples = self.trained.examples
        rows = step_rows(context.plan.seed, step, numbers.batch_size, examples)
        share = microbatches(
            rows,
            rank=context.rank,
            processes=context.processes,
            accumulation=numbers.gradient_accumulation,
            lengths=self.trained.lengths,
        )
        return Batch(step, (step - 1) * numbers.batch_size // examples, share, rows)

    def _end_step(self, batch: Batch) -> None:
        rate = self.rate
        self.progress.step = batch.step
        values = self._step_numbers.end_step(self.progress, rate, len(batch.rows), self.steps)
        self.progress.newest = values
        last = batch.step == self.steps
        if last or batch.step % self.numbers.evaluate_steps == 0:
            values = values | self.evaluate()
            self._best.judge()
        self.context.reporter.metrics(
            batch.step,
            batch.step * self.numbers.batch_size / self.trained.examples,
            values,
            now=last or batch.step in (1, self.progress.evaluated_step),
        )
        self._save_or_stop(last or self.progress.ended)

    def _save_or_stop(self, ended: bool) -> None:
        every = self.context.plan.checkpoint_steps
        due = ended or (every is not None and self.step % every == 0)
        stop, minutes_are_over = self._decide()
        if due or stop or (every is None and minutes_are_over):
            self.save()
        self.stopped = stop

    def _decide(self) -> tuple[bool, bool]:
        """What only clocks and files know is decided by the first process, for all."""
        waited = time.monotonic() - self._saved_at
        flags = (self._stop_wanted(), waited >= self.context.plan.checkpoint_minutes * 60)
        stop, save = self.context.first_says(*flags)
        return stop, save

    def _stop_wanted(self) -> bool:
        return (self.context.folder / STOP).exists()

    def _set_training(self, training: bool) -> None:
        for module in self.trained.modules.values():
            module.train(training)

    def _share_buffers(self) -> None:
        """Running statistics are each process's own until somebody looks: then the first's."""
        if self.context.processes > 1:
            for module in self.trained.modules.values():
                for buffer in buffers(module).values():
                    self.context.broadcast(buffer)

    def _fingerprint(self) -> str:
        given = self.context.plan.hyperparameters | {"steps": self.steps}
        return fingerprint(self.context.plan, self.context.folder, given)


def _of_training(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith("train_")}
