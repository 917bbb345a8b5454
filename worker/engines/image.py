"""The image engine: generations, edits and variations on a diffusers pipeline.

A step is one denoising step of one microbatch, which may hold images of many rows, jobs and
tenants. While it runs, other rows wait; the next microbatch begins with the oldest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
import torch

from shared.errors import PressrunError
from worker.engines.adapter_files import BadAdapter
from worker.engines.base import EngineFailed, OnProgress
from worker.engines.images.adapters import Adapters
from worker.engines.images.batches import Group, Room, next_microbatch
from worker.engines.images.description import describe
from worker.engines.images.lanes import Lanes, lane_count
from worker.engines.images.loading import (
    LoadedPipelines,
    load_pipelines,
    place,
    weight_bytes,
)
from worker.engines.images.lockstep import LockStep
from worker.engines.images.pipelines import Task, own_size, size_multiple
from worker.engines.images.prompts import PromptMeter
from worker.engines.images.requests import Offer, default_size
from worker.engines.images.results import Studio, failure
from worker.engines.images.rows import ImageRow, WantedImage
from worker.engines.images.settings import ImageSettings
from worker.engines.images.stepping import Drawn, Microbatch
from worker.engines.loading import read_settings
from worker.engines.memory import give_back, is_out_of_memory
from worker.engines.protocol import Load, Row, RowProgress, RowResult
from worker.engines.responses import out_of_memory, refusal, unusable_adapter

_HANDS = 4
"""Threads that encode pictures while nothing is drawn."""

log = structlog.get_logger()


class ImageEngine:
    """An ``Engine`` that reports progress."""

    def __init__(
        self,
        *,
        loaded: LoadedPipelines,
        offer: Offer,
        studio: Studio,
        adapters: Adapters,
        room: Room,
        detail: dict[str, Any],
        lanes: Lanes | None = None,
    ) -> None:
        """``lanes`` are those of which one has loaded the model; unset, it is drawn in one."""
        self._loaded = loaded
        self._offer = offer
        self._studio = studio
        self._adapters = adapters
        self._room = room
        self._detail = detail
        self._resident_bytes = weight_bytes(loaded.base)
        self._lanes = lanes or Lanes(LockStep("diffusion"), 1, torch.get_num_threads())
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="encode")
        self._task: Task | None = None
        self._rows: dict[ImageRow, None] = {}
        self._waiting: list[WantedImage] = []
        self._running: Microbatch | None = None

    @property
    def capacity(self) -> int:
        """Twice a microbatch: while one runs, the next is at hand."""
        width, height = self._offer.own_size
        return 2 * self._room.images(width * height)

    @property
    def resident_bytes(self) -> int:
        return self._resident_bytes

    @property
    def detail(self) -> dict[str, Any]:
        return self._detail

    @property
    def busy(self) -> bool:
        return bool(self._rows)

    @property
    def active_rows(self) -> int:
        return len({image.row for image in self._in_flight if not image.row.gone})

    @property
    def waiting_rows(self) -> int:
        return len(self._rows) - self.active_rows

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        """Queues a row's images, or answers at once with status 400."""
        try:
            read = self._offer.read(shard, epoch, row)
        except PressrunError as error:
            return refusal(
                shard,
                epoch,
                row.index,
                code=error.code,
                message=error.message,
                param=error.param,
            )
        self._rows[read] = None
        self._waiting.extend(read.images)
        return None

    def cancel(self, shard: int, epoch: int) -> None:
        for row in [row for row in self._rows if (row.shard, row.epoch) == (shard, epoch)]:
            self._forget(row)
        if self._running is not None and not self._running.wanted:
            self._running.abandon()
            self._running = None

    def step(self) -> list[RowResult]:
        if self._running is None:
            images = next_microbatch(self._waiting, self._most)
            if not images:
                return []
            try:
                self._running = self._begin(images)
            except BadAdapter as why:
                return self._refuse(images, str(why))
        try:
            drawn = self._running.advance()
            trouble = None
        except Exception as error:
            if not self._bearable(error):
                raise
            drawn, trouble = None, error.with_traceback(None)
        if trouble is not None:
            return self._retreat(trouble)
        return [] if drawn is None else self._finish(drawn)

    def progress(self) -> list[RowProgress]:
        rows = dict.fromkeys(image.row for image in self._in_flight if not image.row.gone)
        return [news for row in rows for news in row.news()]

    @property
    def _in_flight(self) -> Sequence[WantedImage]:
        return () if self._running is None else self._running.images

    def _most(self, group: Group) -> int:
        able = self._loaded.abilities[group.task]
        if group.task is not Task.TEXT_TO_IMAGE and not able.takes_strength:
            # Such pipelines read a list of images as several references for one prompt.
            return 1
        return self._room.images(group.pixels)

    def _begin(self, images: list[WantedImage]) -> Microbatch:
        taken = set(images)
        self._waiting = [image for image in self._waiting if image not in taken]
        group = images[0].group
        pipeline = self._loaded.pipelines[group.task]
        digest = self._lanes.call(lambda: self._adapters.use(pipeline, group.adapter, group.tuned))
        for image in images:
            image.row.adapter_sha256 = digest
        if self._loaded.offload != "none" and group.task is not self._task:
            place(pipeline, self._loaded.offload, self._loaded.device)
        self._task = group.task
        return Microbatch(
            pipeline,
            self._loaded.abilities[group.task],
            images,
            self._lanes,
            self._studio.preview,
        )

    def _finish(self, drawn: Drawn) -> list[RowResult]:
        images, self._running = self._in_flight, None
        self._room.calm()
        made = zip(images, drawn.pictures, drawn.withheld, strict=True)
        wanted = [each for each in made if not each[0].row.gone]
        list(self._hands.map(lambda each: self._studio.finish(*each), wanted))
        results = []
        for image, _, _ in wanted:
            row = image.row
            image.steps_done = row.steps
            if row.finished and row in self._rows:
                del self._rows[row]
                results.append(self._studio.result(row))
        return results

    def _bearable(self, error: Exception) -> bool:
        """Whether the process can go on after what a pipeline raised.

        After a RuntimeError on a GPU nobody knows; elsewhere nothing but this call is spoilt.
        """
        if is_out_of_memory(error) or self._loaded.device.type == "cpu":
            return True
        return not isinstance(error, RuntimeError)

    def _retreat(self, error: Exception) -> list[RowResult]:
        """The microbatch failed: again with fewer images, or fewer rows; or the row fails."""
        images = [image for image in self._in_flight if not image.row.gone]
        if self._running is not None:
            self._running.abandon()
            self._running = None
        give_back(self._loaded.device)
        short = is_out_of_memory(error)
        log.warning("microbatch_failed", images=len(images), error=type(error).__name__)
        for image in images:
            image.steps_done = 0
        rows = list(dict.fromkeys(image.row for image in images))
        if short and len(images) > 1:
            self._room.shrink(images)
        elif len(rows) > 1:
            for row in rows:
                row.isolate()
        else:
            return [self._fail(row, error, short) for row in rows]
        self._waiting = [*images, *self._waiting]
        return []

    def _fail(self, row: ImageRow, error: Exception, short: bool) -> RowResult:
        self._forget(row)
        if short:
            message = "one image alone does not fit the memory of this machine"
            return out_of_memory(row.shard, row.epoch, row.index, message)
        message = f"the model cannot run this combination: {type(error).__name__}: {error}"
        return failure(row, "generation_failed", message[:500])

    def _refuse(self, images: Sequence[WantedImage], why: str) -> list[RowResult]:
        """Their adapter can't be used."""
        rows = list(dict.fromkeys(image.row for image in images))
        for row in rows:
            self._forget(row)
        return [unusable_adapter(r.shard, r.epoch, r.index, r.adapter_name, why) for r in rows]

    def _forget(self, row: ImageRow) -> None:
        self._rows.pop(row, None)
        self._waiting = [image for image in self._waiting if image.row is not row]
        row.drop()


def create(load: Load, progress: OnProgress) -> ImageEngine:
    """Loads a model for images. Raises EngineFailed ``model_load_failed`` or ``bad_settings``."""
    if not load.spool:
        raise EngineFailed("bad_settings", "the image engine needs a spool to leave images in")
    settings = read_settings(ImageSettings, load.settings)
    lockstep: LockStep[Drawn] = LockStep("diffusion")
    return lockstep.call(lambda: _create(load, settings, progress, lockstep))


def _create(
    load: Load, settings: ImageSettings, progress: OnProgress, lockstep: LockStep[Drawn]
) -> ImageEngine:
    loaded = load_pipelines(load.source, settings, progress)
    base = loaded.base
    progress(0.75, "loading adapters")
    adapters = Adapters(
        base, settings.adapters, Path(load.source), most_tuned=settings.max_adapters
    )
    offer = Offer(
        abilities=loaded.abilities,
        settings=settings,
        own_size=default_size(own_size(base), settings),
        size_multiple=settings.size_multiple or size_multiple(base),
        adapters=adapters.names,
        meter=PromptMeter(base),
    )
    threads = torch.get_num_threads()
    lanes = Lanes(lockstep, lane_count(settings.lanes, loaded.device, threads), threads)
    room = Room(settings.microbatch, lanes.count)
    progress(0.95, "ready")
    return ImageEngine(
        loaded=loaded,
        offer=offer,
        studio=Studio.of(load, loaded, {name: adapters.digest(name) for name in adapters.names}),
        adapters=adapters,
        room=room,
        lanes=lanes,
        detail=describe(loaded, offer, room, lanes),
    )
