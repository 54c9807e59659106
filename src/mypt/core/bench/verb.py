"""The verb: which rows there are, and their figures round by round.

    this machine -> presets that fit -> rounds of rows, each row a child process -> a report, at any time

Knows no torch: what fits, and how fast it is, the children say.
"""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from mypt.core.bench.children import ask
from mypt.core.bench.peers import Peer, has_shape, peers_on, require_checkout
from mypt.core.bench.results import Results
from mypt.core.bench.startup import first_step_s, import_torch_s
from mypt.errors import MemoryShortageError, MyptError
from mypt.events import BenchStarted, Event, LeftOut, Measured, Warned
from mypt.records.base import Record
from mypt.records.bench import (
    BenchOptions,
    BenchReport,
    GenerationFigures,
    Job,
    MachineFacts,
    Survey,
    TrainingFigures,
)
from mypt.records.budget import training_flops_per_token
from mypt.records.run import RunConfig
from mypt.units import human_bytes, human_duration, several

_LIKELY_SHARE = 0.5
"""Of the matrix rate that steps reach, where nothing is known yet."""
_LONGEST_STEP_S = 4.0
"""Steps that are likely longer are measured only when their preset is named."""
_QUIET_SHARE = 0.5
"""Of the cores that others may keep busy before we say so."""


class Row(NamedTuple):
    """Something to be measured once in every round."""

    name: str
    what: str
    measure: Callable[[], Record]


class Bench:
    """One benchmark. What was measured so far can be asked for at any time."""

    def __init__(self, options: BenchOptions) -> None:
        """Get ready.

        Raises:
            UsageError: when what to compare with is no checkout.
        """
        self._options = options
        self._checkouts = [require_checkout(Path(path)) for path in options.against]
        self._results = Results(options)

    def run(self) -> Generator[Event]:
        """Measure. Closing ends the children.

        Raises:
            UsageError: for a device that this machine does not have.
        """
        options = self._options
        yield from _warn_of_others()
        training = RunConfig().training.model_copy(update={"device": options.device, "precision": options.precision})
        config, seconds = RunConfig(training=training), options.seconds
        survey = Survey.model_validate(ask(Job(task="survey", config=config, configs=options.configs, seconds=seconds)))
        self._results.survey, machine = survey, survey.machine
        configs = yield from self._chosen(survey)
        rows = list(self._rows(configs, machine))
        rate = machine.matrix_flops_per_s
        yield BenchStarted(machine.device, machine.precision, rate, tuple(configs), options.rounds)
        for number in range(1, options.rounds + 1):
            yield from self._startup(number, configs)
            for row in rows.copy():
                try:
                    yield self._measured(number, row)
                except MyptError as problem:
                    rows.remove(row)
                    yield self._left_out(f"{row.name}, {row.what}", problem.message)

    def report(self) -> BenchReport:
        """Sum up what was measured so far."""
        return self._results.report()

    def _chosen(self, survey: Survey) -> Generator[Event, None, dict[str, RunConfig]]:
        """What fits, and of presets that nobody named what does not take long.

        Raises:
            MemoryShortageError: when that is nothing.
        """
        rate = survey.machine.matrix_flops_per_s * _LIKELY_SHARE
        chosen: dict[str, RunConfig] = {}
        for name, config in self._options.configs.items():
            tokens = config.training.batch_size * config.model.block_size
            likely_s = training_flops_per_token(config.model) * tokens / rate
            needed, free = survey.needed_bytes[name], survey.free_bytes
            if free is not None and needed > free:
                why = f"needs {human_bytes(needed)} by the estimate, {human_bytes(free)} are free"
                yield self._left_out(name, why)
            elif self._options.choose and chosen and likely_s > _LONGEST_STEP_S:
                why = f"a step would take about {human_duration(likely_s)} here; name it to measure it"
                yield self._left_out(name, why)
            else:
                chosen[name] = config
        if not chosen:
            raise MemoryShortageError("none of them fits into the memory", hint="Try a smaller --batch-size.")
        return chosen

    def _rows(self, configs: dict[str, RunConfig], machine: MachineFacts) -> Iterator[Row]:
        """Ours and what is compared with it side by side."""
        seconds = self._options.seconds
        for name, config in configs.items():
            job = Job(task="training", config=config, seconds=seconds)
            yield Row(name, "training", lambda job=job: TrainingFigures.model_validate(ask(job)))
            for checkout in self._checkouts if has_shape(config) else ():
                for peer in peers_on(machine, self._options.precision, checkout):
                    peers_job = _peers_job(job, peer)
                    yield Row(name, peer.name, lambda job=peers_job: TrainingFigures.model_validate(ask(job)))
            job = Job(task="generation", config=config, seconds=seconds)
            yield Row(name, "generation", lambda job=job: GenerationFigures.model_validate(ask(job)))

    def _measured(self, number: int, row: Row) -> Measured:
        figures = row.measure()
        self._results.add(row.name, row.what, figures)
        return Measured(number, row.name, row.what, figures.model_dump())

    def _startup(self, number: int, configs: dict[str, RunConfig]) -> Iterator[Event]:
        """From nothing to torch, and to the first step of the smallest preset."""
        name, config = next(iter(configs.items()))
        results = self._results
        results.first_step_preset = name
        try:
            results.imports_s.append(import_torch_s())
            results.first_steps_s.append(first_step_s(config))
        except MyptError as problem:
            yield self._left_out("start", problem.message)
            return
        torch_s, step_s = results.imports_s[-1], results.first_steps_s[-1]
        yield Measured(number, name, "start", {"import_torch_s": torch_s, "first_step_s": step_s})

    def _left_out(self, name: str, why: str) -> LeftOut:
        self._results.left_out[name] = why
        return LeftOut(name, why)


def _warn_of_others() -> Iterator[Warned]:
    """Figures of a busy machine are true and say little."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores * _QUIET_SHARE:
        yield Warned(
            f"other programs are at work (a load of {load:.1f} on {several(cores, 'core')}): figures will be lower "
            "than they could be, and programs whose threads wait by spinning lose most"
        )


def _peers_job(job: Job, peer: Peer) -> Job:
    program, path = peer.checkout
    changes = {"task": "peer", "program": program.name, "checkout": str(path)}
    return job.model_copy(update=changes | {"precision": peer.precision, "compiled": peer.compiled})
