"""How a benchmark looks: a line for every figure as it comes, and a table of all of them."""

from collections.abc import Callable, Iterator

from rich.table import Table
from rich.text import Text

from mypt.cli.consoles import data_console, prose_console
from mypt.events import BenchStarted, Event, LeftOut, Measured, Warned
from mypt.records.bench import BenchReport, PeerBench, PresetBench, Spread
from mypt.units import human_bytes, several


def draw_progress(events: Iterator[Event]) -> None:
    """Tell what is measured, line by line."""
    console = prose_console()
    rounds = 0
    for event in events:
        match event:
            case BenchStarted():
                rounds = event.rounds
                speed = f"{human_flops(event.matrix_flops_per_s)} in {event.precision} matrix products"
                rows = f"{', '.join(event.presets)}: {several(rounds, 'round')}"
                console.print(f"{event.device}: {speed}. {rows}", soft_wrap=True)
            case Measured():
                told = ", ".join(filter(None, (_told(name, value) for name, value in event.figures.items())))
                line = f"round {event.round}/{rounds}  {event.preset}  {event.what}  {told}"
                console.print(line, soft_wrap=True)
            case LeftOut():
                console.print(Text.assemble((f"{event.name}: left out. ", "yellow"), event.why), soft_wrap=True)
            case Warned():
                console.print(Text.assemble(("Warning: ", "yellow"), event.message), soft_wrap=True)
            case _:
                pass


def show_bench(report: BenchReport) -> None:
    """Draw all that was measured, as data."""
    console = data_console()
    machine = report.machine
    if machine is not None:
        console.print(
            f"{machine.device}, torch {machine.torch}: {human_flops(machine.matrix_flops_per_s)} in "
            f"{machine.precision} matrix products",
            soft_wrap=True,
        )
    if report.presets:
        for table in (_training(report.presets), _generation(report.presets)):
            console.print()
            console.print(table)
    if report.peers:
        console.print()
        console.print(_peers(report.peers))
    if report.import_torch_s is not None and report.first_step_s is not None:
        torch_s, step_s = report.import_torch_s.median, report.first_step_s.median
        where = f"from the shell to the first step of {report.first_step_preset} {step_s:.1f}s"
        console.print(f"\nstart: import torch {torch_s:.1f}s, {where}", soft_wrap=True)


def human_flops(flops_per_s: float) -> str:
    """Shorten a rate: 9.1e10 -> '91.0 GFLOP/s'."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if flops_per_s >= limit:
            return f"{flops_per_s / limit:.1f} {prefix}FLOP/s"
    return f"{flops_per_s / 1e6:.1f} MFLOP/s"


def _training(presets: tuple[PresetBench, ...]) -> Table:
    has_mfu = any(preset.mfu for preset in presets)
    table = _columns("training", "batch", "tokens/s", "of matrix", *(["MFU"] if has_mfu else []), "memory", "estimate")
    for preset in presets:
        shares = [preset.matrix_share, *([preset.mfu] if has_mfu else [])]
        table.add_row(
            f"{preset.name} {preset.precision}",
            f"{preset.batch_size}x{preset.block_size}",
            _range(preset.tokens_per_s),
            *(f"{share.median:.1%}" if share else "-" for share in shares),
            *(human_bytes(size) if size else "-" for size in (preset.peak_bytes, preset.estimated_bytes)),
        )
    return table


def _generation(presets: tuple[PresetBench, ...]) -> Table:
    table = _columns("generation", "tokens/s", "first token")
    for preset in presets:
        first = preset.first_token_s
        told = "-" if first is None else f"{first.median * 1000:.1f} ms"
        table.add_row(f"{preset.name} fp32", _range(preset.generation_tokens_per_s), told)
    return table


def _peers(peers: tuple[PeerBench, ...]) -> Table:
    table = _columns("compared with", "preset", "tokens/s", "memory", "times as fast are we")
    for peer in peers:
        times = _range(peer.ratio, lambda times: f"{times:.2f}")
        table.add_row(peer.name, peer.preset, _range(peer.tokens_per_s), human_bytes(peer.peak_bytes), times)
    return table


def _columns(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, style="bold", no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _range(spread: Spread | None, show: Callable[[float], str] = _count) -> str:
    """The median, and in brackets the least and the most."""
    return "-" if spread is None else f"{show(spread.median)} ({show(spread.least)} to {show(spread.most)})"


def _told(name: str, value: float | str | None) -> str:
    """One figure of a line of progress; those that only make sense together are in the table."""
    if not isinstance(value, int | float):
        return ""
    shown = {
        "tokens_per_s": f"{value:,.0f} tokens/s",
        "peak_bytes": human_bytes(value),
        "first_token_s": f"first token {value * 1000:.1f} ms",
        "import_torch_s": f"import torch {value:.1f}s",
        "first_step_s": f"first step {value:.1f}s",
    }
    return shown.get(name, "")
