"""The speech engine: texts read aloud, sentence by sentence."""

from worker.engines.speech.engine import SpeechEngine, create

__all__ = ["SpeechEngine", "create"]
