"""The composer: videos from pictures, narrations and captions. Without weights, without torch.

See ``worker.engines.composing``; this module is what the registry names.
"""

from __future__ import annotations

from worker.engines.base import Engine, EngineFailed, OnProgress
from worker.engines.one_by_one import OneByOne
from worker.engines.protocol import Load


def create(load: Load, progress: OnProgress) -> Engine:
    """Raises EngineFailed ``video_extra_missing``, ``bad_settings``, ``spool_missing`` or
    ``codec_missing``."""
    require_video_extra()
    from worker.engines.composing.composition import Composer
    from worker.engines.composing.fonts import Fonts
    from worker.engines.composing.settings import read_composer_settings

    settings = read_composer_settings(load.settings)
    if not load.spool:
        raise EngineFailed("spool_missing", "a composer needs a spool to write videos into")
    try:
        Fonts(settings.fonts)
    except OSError as error:
        raise EngineFailed("bad_settings", f"engine setting 'fonts': {error}") from None
    detail = {"device": "cpu", "scheduler": "one_by_one", "codecs": codecs()}
    progress(1.0, "ready")
    return OneByOne(Composer(load, settings).begin, detail=detail)


def codecs() -> dict[str, list[str]]:
    """Encoders of picture and sound by container. Raises EngineFailed ``codec_missing``."""
    from worker.engines.encoding import AUDIO_CODECS, video_codec

    return {container: [video_codec(container), sound] for container, sound in AUDIO_CODECS.items()}


def require_video_extra() -> None:
    """Raises EngineFailed ``video_extra_missing`` where PyAV or Pillow is not installed."""
    try:
        import av  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise EngineFailed(
            "video_extra_missing",
            f"making videos needs the extra 'video' (pip install '.[video]'): {error}",
        ) from None
