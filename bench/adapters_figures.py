"""What serving several tuned models at once costs against serving one."""

from __future__ import annotations

from bench.beside import beside
from bench.report import Measurement, median
from bench.rig import Rig

ADAPTERS = 8
ROWS, NEW_TOKENS = 128, 32


def eight_vs_one(rig: Rig) -> Measurement:
    """The text engine's rows a second with eight adapters resident and mixed, over the same rows
    with one; both take turns in one engine."""
    rows, new_tokens = (16, 8) if rig.quick else (ROWS, NEW_TOKENS)
    samples: dict[str, list[float]] = {"8": [], "1": [], "none": []}
    folder = rig.folder("adapters")
    with beside(rig, "bench.bare_adapters", str(rig.text_model), str(folder)) as engine:
        for _ in range(rig.rounds):
            for name, count in (("1", 1), ("8", ADAPTERS), ("none", 0)):
                said = engine.ask(adapters=count, rows=rows, new_tokens=new_tokens)
                samples[name].append(said["rows_per_second"])
    rates = {name: median(found) for name, found in samples.items()}
    return Measurement(
        rates["8"] / rates["1"],
        {
            "unit": "rows/s",
            "sides": {"8 adapters": rates["8"], "1 adapter": rates["1"]},
            "samples": samples,
            "rows": rows,
            "new_tokens_per_row": new_tokens,
            "dtype": said["dtype"],
            "over_no_adapter": rates["8"] / rates["none"],
        },
    )
