"""mypt bench: measure this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mypt.cli.options import DeviceName, Json, complete_preset, option

if TYPE_CHECKING:
    from mypt.records.bench import BenchOptions


def bench(
    presets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PRESET",
            help="Presets or config files; those whose steps take seconds at most, if not given.",
            show_default=False,
            autocompletion=complete_preset,
        ),
    ] = None,
    batch_size: Annotated[int | None, option("--batch-size", help="Sequences per optimizer step.")] = None,
    seconds: Annotated[
        float,
        option("--seconds", help="Of steps, or of tokens, in each process.", show_default=True, min=0.01, max=3600),
    ] = 3.0,
    rounds: Annotated[
        int, option("--rounds", help="How often each row is measured, in turns.", show_default=True, min=1, max=1000)
    ] = 3,
    device: DeviceName = None,
    precision: Annotated[
        str | None, option("--precision", help="fp32, bf16, fp16, or auto: what this machine does best.")
    ] = None,
    compile: Annotated[  # noqa: A002 - what the option is called
        str | None, option("--compile", help="on: measure compiled steps. Otherwise they are not compiled.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        option("--against", help="A checkout of nanoGPT or litgpt, whose code is run beside ours; may be given again."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure this machine: training, its share of what the device can do, memory, generation, start-up."""
    from contextlib import closing

    from mypt.cli.benching import draw_progress, show_bench
    from mypt.cli.stopping import stop_on_signals
    from mypt.core.bench.verb import Bench

    flags = {"training.batch_size": batch_size, "training.device": device, "training.precision": precision}
    flags["training.compile"] = compile
    given: dict[str, object] = {key: value for key, value in flags.items() if value is not None}
    benchmark = Bench(_options(presets or [], given, seconds=seconds, rounds=rounds, against=against or []))

    def show() -> None:
        report = benchmark.report()
        if json:
            typer.echo(report.model_dump_json(indent=2, by_alias=True))
        else:
            show_bench(report)

    with stop_on_signals(), closing(benchmark.run()) as events:
        try:
            draw_progress(events)
        except (KeyboardInterrupt, SystemExit):
            events.close()  # the child at work ends first
            show()
            raise
    show()


def _options(
    references: list[str], given: dict[str, object], *, seconds: float, rounds: int, against: list[Path]
) -> "BenchOptions":
    from mypt.errors import UsageError
    from mypt.records.bench import BenchOptions
    from mypt.records.presets import find_config, preset_names
    from mypt.records.resolve import Layer, dotted_layer, resolve

    configs = {}
    for reference in references or preset_names():
        layer = Layer(*find_config(reference))
        name = Path(reference).stem
        if name in configs:
            raise UsageError(f"two presets of the name {name}")
        configs[name] = resolve([layer, dotted_layer("flag", given)], where=layer.source).config
    by_size = dict(sorted(configs.items(), key=lambda pair: pair[1].model.parameters))
    training = next(iter(by_size.values())).training
    return BenchOptions(
        configs=by_size,
        choose=not references,
        seconds=seconds,
        rounds=rounds,
        device=training.device,
        precision=training.precision,
        against=tuple(map(str, against)),
    )
