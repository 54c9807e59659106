"""mypt generate: load a model, stream its text."""

import time
from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, DeviceName, ModelArgument, ModelName, option, pick_model
from mypt.cli.streams import visible


def generate(
    name: ModelArgument = None,
    model_name: ModelName = None,
    prompt: Annotated[str, option("--prompt", "-p", help="The text to continue.")] = "",
    max_new_tokens: Annotated[int | None, option("--max-new-tokens", "-n", help="Tokens to add at most.")] = None,
    temperature: Annotated[float | None, option("--temperature", help="0 is greedy; higher is wilder.")] = None,
    top_k: Annotated[int | None, option("--top-k", help="Sample among the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, option("--top-p", help="Sample among the likeliest tokens that hold this probability.")
    ] = None,
    seed: Annotated[int | None, option("--seed", help="The same seed gives the same text.")] = None,
    num_samples: Annotated[int | None, option("--num-samples", help="Samples to draw.")] = None,
    stop: Annotated[
        list[str] | None, option("--stop", help="Texts that end a sample; they are not part of it (repeatable).")
    ] = None,
    mode: Annotated[str | None, option("--mode", help="basic completes; qa asks and answers.")] = None,
    unknown: Annotated[
        str | None, option("--unknown", help="What to do with unknown characters: error or skip.")
    ] = None,
    device: DeviceName = None,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    show_info: Annotated[bool, option("--show-info", help="Say first what model this is.")] = False,
    quiet: Annotated[bool, option("--quiet", "-q", help="Print the new text and nothing else.")] = False,
    json: Annotated[bool, option("--json", help="Print one JSON object per sample on stdout.")] = False,
) -> None:
    """Continue a prompt with a trained model."""
    from mypt.cli.writing import draw_generation, show_model_line
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.records.sampling import SamplingConfig

    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "num_samples": num_samples,
        "stop": stop,
        "mode": mode,
        "unknown": unknown,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    config = SamplingConfig.parse(given, where="generate")
    wanted = pick_model(name, model_name)
    directory = ModelDirectory(checkpoint_dir, "default" if wanted is None else wanted)

    from mypt.cli.stopping import stop_on_signals

    with stop_on_signals() as stopped:
        started_s = time.monotonic()
        from mypt.core.generate.loaded import load_model

        device_name = "auto" if device is None else device
        loaded = load_model(
            directory, device_name, lambda message: typer.echo(f"Warning: {visible(message)}", err=True)
        )
        if stopped():  # an import may swallow it
            raise typer.Exit(stopped.exit_code)
        load_s = time.monotonic() - started_s
        if show_info:
            show_model_line(loaded.snapshot.training, loaded.snapshot.config, loaded.tokenizer.spec.kind)
        draw_generation(loaded.stream(prompt, config), config, load_s=load_s, quiet=quiet, as_json=json)
