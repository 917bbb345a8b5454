"""The video engine: text to video and image to video with diffusion pipelines.

See ``worker.engines.filming``; this module is what the registry names. A step is one denoising
step, or the encoding of some frames.
"""

from __future__ import annotations

from worker.engines.base import Engine, EngineFailed, OnProgress
from worker.engines.composer import codecs, require_video_extra
from worker.engines.one_by_one import OneByOne
from worker.engines.protocol import Load


def create(load: Load, progress: OnProgress) -> Engine:
    """Loads a model for videos. Raises EngineFailed ``video_extra_missing``, ``spool_missing``,
    ``codec_missing``, ``bad_settings`` or ``model_load_failed``."""
    require_video_extra()
    if not load.spool:
        raise EngineFailed("spool_missing", "the video engine needs a spool to write videos into")
    from worker.engines.filming.film import Filmer
    from worker.engines.filming.loading import load_video_model
    from worker.engines.filming.settings import VideoSettings
    from worker.engines.loading import dtype_name, read_settings

    encoders = codecs()
    settings = read_settings(VideoSettings, load.settings)
    loaded = load_video_model(load.source, settings, progress)
    progress(1.0, "ready")
    detail = {
        "device": str(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "scheduler": type(loaded.base.scheduler).__name__,
        "pipeline": type(loaded.base).__name__,
        "tasks": [
            name
            for name, pipeline in (("text_to_video", loaded.text), ("image_to_video", loaded.image))
            if pipeline is not None
        ],
        "offload": loaded.offload,
        "codecs": encoders,
        "fingerprint": loaded.fingerprint,
    }
    filmer = Filmer(load, loaded, settings)
    return OneByOne(filmer.begin, detail=detail, resident_bytes=loaded.weight_bytes)
