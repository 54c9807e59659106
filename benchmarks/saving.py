"""How long a training stands still for its saves, at the default interval.

    python benchmarks/saving.py PRESET BATCH_SIZE MINUTES      for example: small 1 5

Random letters; prints one JSON line. `stalls_s` are the copies in memory, `write_s` is what a thread
does beside the steps.
"""

import json
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.events import Finished, Saved, StepDone
from mypt.records.presets import load_preset
from mypt.records.run import DataConfig


def main(name: str, batch_size: int, minutes: float) -> None:
    """Train for some minutes and print what the saves cost."""
    preset = load_preset(name)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(random.Random(1).choices("abcdefgh \n", k=1_000_000)))
        training = preset.training.model_copy(
            update={"batch_size": batch_size, "max_iters": 1_000_000, "eval_interval": 1_000_000}
        )
        data = DataConfig(input_files=(str(text),), tokenization="gpt2")
        config = preset.model_copy(update={"training": training, "data": data})
        started_s = previous_s = time.monotonic()
        steps_s: list[float] = []
        saves: list[Saved] = []
        finished: Finished | None = None

        def stop() -> bool:
            return time.monotonic() - started_s > minutes * 60

        with closing(train(config, ModelDirectory(Path(folder), "model"), stop=stop)) as events:
            for event in events:
                match event:
                    case StepDone():
                        steps_s.append(time.monotonic() - previous_s)
                        previous_s = time.monotonic()
                    case Saved() if not stop():
                        saves.append(event)
                    case Finished():
                        finished = event
                    case _:
                        pass
    assert finished is not None, "stopped"
    row = {
        "preset": name,
        "state_bytes": saves[0].size_bytes if saves else 0,
        "saves": len(saves),
        "write_s": round(median(save.elapsed_s for save in saves), 3) if saves else None,
        "stalls_s": [round(save.stall_s, 3) for save in saves],
        "median_step_s": round(median(steps_s), 3),
        "run_s": round(finished.elapsed_s, 1),
        "stalled_share": round(finished.stalled_s / finished.elapsed_s, 5),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
