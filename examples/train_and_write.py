"""Train a tiny character model on a text, then let it write. Public API only, no network.

    python examples/train_and_write.py [TEXT] [--steps N]

Without a text it makes one of small sums. The model lives under ./checkpoints; run the same line again to see
that it is complete, or with more steps to go on training it.
"""

import argparse
from pathlib import Path

import mypt
from mypt.events import Evaluated, Finished, RunPlanned, Saved

SETTINGS = {
    "model.n_layer": 2,
    "model.n_head": 4,
    "model.n_embd": 64,
    "model.block_size": 64,
    "model.dropout": 0.0,
    "training.batch_size": 16,
    "training.learning_rate": 3e-3,
    "data.tokenization": "char",
}


def write_sums(path: Path) -> Path:
    """Make a text of small sums: '3 + 4 = 7.'."""
    lines = (f"{a} + {b} = {a + b}.\n" for a in range(60) for b in range(60))
    # Sorted from the end: an order that mixes large and small, the same every time.
    path.write_text("".join(sorted(lines, key=lambda line: line[::-1])), encoding="utf-8")
    return path


def main() -> None:
    """Train, tell what happens, write."""
    parser = argparse.ArgumentParser(description="Train a tiny model and let it write.")
    parser.add_argument("text", nargs="?", type=Path, help="a UTF-8 text file")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps (default: 300)")
    arguments = parser.parse_args()
    text = arguments.text or write_sums(Path("sums.txt"))
    name = f"example-{text.stem}"

    settings = SETTINGS | {
        "training.max_iters": arguments.steps,
        "training.eval_interval": max(1, arguments.steps // 3),
    }
    for event in mypt.train(str(text), model_name=name, preset="tiny", settings=settings):
        match event:
            case RunPlanned():
                print(f"{event.parameters:,} parameters, {event.train_tokens:,} training characters, on {event.device}")
            case Evaluated():
                print(f"step {event.step}: validation loss {event.val_loss:.3f} nats per character")
            case Saved():
                print(f"step {event.step}: saved {event.path}")
            case Finished():
                print(f"{event.reason} at step {event.step}")
            case _:
                pass

    print("\nIt writes:\n" + mypt.load(name).generate(max_new_tokens=120, temperature=0.5))


if __name__ == "__main__":
    main()
