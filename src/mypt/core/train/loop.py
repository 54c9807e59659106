"""Steps until the end, a stop or a close; evaluations, saves and what goes wrong on the way.

Whatever ends the run, the current step is saved first, as long as its numbers are sound.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.cadence import Cadence
from mypt.core.train.memory import in_memory
from mypt.core.train.meter import Meter
from mypt.core.train.metrics import MetricsLog
from mypt.core.train.saving import Saver
from mypt.core.train.schedule import learning_rate
from mypt.core.train.session import Session, Vitals
from mypt.core.train.skips import skipped, too_many_skips
from mypt.errors import CheckpointError, DivergedError, MyptError
from mypt.events import Evaluated, Event, Finished, StepDone, Warned
from mypt.records.budget import flops_utilization, training_flops_per_token
from mypt.records.peaks import peak_flops


class Loop:
    """One run from its first step in this process to its last."""

    def __init__(
        self, session: Session, directory: ModelDirectory, log: MetricsLog, stop: Callable[[], bool], *, beside: bool
    ) -> None:
        """Begin where the session stands; with `beside`, save while training goes on."""
        self._session = session
        self._directory = directory
        self._log = log
        self._stop = stop
        self._training = session.config.training
        self._meter = Meter(session.tokens_per_step, time.monotonic)
        self._cadence = Cadence(self._training, time.monotonic())
        step = session.progress.step
        self._saver = Saver(directory, self._training, session.device, log, beside=beside, newest_step=step)
        self._best_at: int | None = None
        """The step in this process whose evaluation was the best so far."""
        self._peak_flops = peak_flops(session.device.name, session.device.precision)
        self._behind = session.device.steps_ahead
        self._warned_of_parting = False
        self._warned_of_log = False

    def run(self) -> Generator[Event, None, None]:
        """Train to the end. What whoever is told of an event does meanwhile is no time of a step.

        Raises:
            MyptError: one of its kinds; the last sound step is saved before.
        """
        with closing(self._run()) as events:
            event = next(events, None)
            while event is not None:
                try:
                    with self._meter.spending("logging"):
                        yield event
                except Exception as problem:  # noqa: BLE001 - raised into the run, where it was told of the event
                    event = events.throw(problem)
                else:
                    event = next(events, None)

    def _run(self) -> Generator[Event, None, None]:
        first_step = self._session.progress.step
        try:
            # A run that was closed between a step and its evaluation owes this one.
            yield from self._evaluate_if_due()
            while (reason := self._end()) is None:
                yield from self._step()
            yield from self._save_last()
        except GeneratorExit:
            # Closed from outside: nobody listens any more, but nothing may be lost.
            for _ in self._save_last():
                pass
            raise
        except DivergedError:
            raise  # the last state is the last good one
        except MyptError:
            yield from list(self._save_last())  # saved before it is told: whoever is told may close the run
            raise
        finally:
            with self._meter.spending("saving"):
                self._saver.close()
        if reason == "completed" and self._session.progress.step == first_step:
            reason = "already complete"
        yield self._finished(reason)

    def _end(self) -> str | None:
        progress, patience = self._session.progress, self._training.patience
        if progress.step >= self._training.max_iters:
            return "completed"
        if patience and progress.evaluations_since_best >= patience:
            return "no improvement"
        return "stopped" if self._stop() else None

    def _step(self) -> Iterator[Event]:
        session, training = self._session, self._training
        waited_s = session.waited_s
        with self._meter.spending("steps"):
            yield from in_memory(session, session.train_step)
        self._meter.step(session.waited_s - waited_s)
        step = session.progress.step
        if self._is_logged(step - self._behind):
            yield from self._read(self._behind)
        yield from self._evaluate_if_due()
        with self._meter.spending("saving"):
            yield from self._saver.poll()
        now_s = time.monotonic()
        if step < training.max_iters and self._cadence.due(step, now_s, is_best=self._best_at == step):
            yield from self._save()

    def _evaluate_if_due(self) -> Iterator[Event]:
        session, progress = self._session, self._session.progress
        is_due = progress.step % self._training.eval_interval == 0 or progress.step == self._training.max_iters
        if not (session.val_windows and progress.step and is_due):
            return
        yield from self._read()
        if progress.val_step == progress.applied_step:
            return  # these weights were evaluated
        started_s = time.monotonic()
        with self._meter.spending("evaluation"):
            result = yield from in_memory(session, lambda: session.evaluate(self._stop))
        elapsed_s = time.monotonic() - started_s
        if result is None:
            return  # stopped on the way; who goes on begins with it
        if progress.is_best:
            self._best_at = progress.step
        yield from self._logged(
            Evaluated(progress.step, result.loss, result.bits_per_byte, session.val_windows, elapsed_s)
        )
        if progress.has_parted() and not self._warned_of_parting:
            self._warned_of_parting = True
            yield Warned(
                f"the training loss falls but the validation loss has not been better since step "
                f"{progress.best_step:,}: the model learns its text by heart. --patience ends such a run; "
                "the best state is kept"
            )

    def _is_logged(self, step: int) -> bool:
        return step % self._training.log_interval == 0 or step in {1, self._training.max_iters}

    def _read(self, behind: int = 0) -> Iterator[Event]:
        """Wait for all steps but the newest `behind`; tell of those that were left out or are to be logged.

        Raises:
            DivergedError: when more steps were left out than may be.
        """
        with self._meter.spending("steps"):
            read = self._session.read(behind)
        left_out = [skipped(vitals, self._session) for vitals in read if not vitals.is_sound]
        done = [self._step_done(vitals) for vitals in read if vitals.is_sound and self._is_logged(vitals.step)]
        yield from self._logged(*left_out, *done)
        if left_out and len(self._session.progress.skipped_steps) > self._training.max_skips:
            raise too_many_skips(left_out[-1], self._session)

    def _step_done(self, vitals: Vitals) -> StepDone:
        under_way = self._session.progress.step - vitals.step
        tokens_per_s = self._meter.lap_tokens_per_s(under_way)
        return StepDone(
            step=vitals.step,
            loss=vitals.loss,
            learning_rate=learning_rate(self._training.learning_rate, vitals.step - 1, self._training),
            tokens_per_s=tokens_per_s,
            mfu=self._mfu(tokens_per_s),
            tokens_seen=(vitals.first_sample + vitals.samples) * self._session.config.model.block_size,
            elapsed_s=self._meter.elapsed_s,
            eta_s=self._meter.eta_s(self._training.max_iters - vitals.step, under_way),
        )

    def _mfu(self, tokens_per_s: float) -> float | None:
        return flops_utilization(training_flops_per_token(self._session.config.model), tokens_per_s, self._peak_flops)

    def _save(self) -> Iterator[Event]:
        """Begin to write the current state, beside the steps that follow."""
        yield from self._read()
        if self._session.progress.applied_step == self._saver.newest_step:
            return  # nothing was applied since
        with self._meter.spending("saving"):
            yield from self._changed_text()
            yield from self._saver.begin(self._session.contents(self._directory.name))
        self._cadence.saved(time.monotonic(), self._saver.stall_s)

    def _save_last(self) -> Iterator[Event]:
        yield from self._read()  # what is no number any more must not be saved
        with self._meter.spending("saving"):
            yield from self._changed_text()
            if self._session.progress.applied_step:
                yield from self._saver.save_now(self._session.contents(self._directory.name))

    def _changed_text(self) -> Iterator[Warned]:
        note = self._session.corpus.change_note()
        if note:
            yield Warned(note)

    def _logged(self, *events: Event) -> Iterator[Event]:
        """Put events into the log, all before the first is told: whoever is told may close the run.

        Raises:
            CheckpointError: when the log cannot be written and that is to stop the run.
        """
        warning: Warned | None = None
        try:
            with self._meter.spending("logging"):
                for event in events:
                    self._log.append(event)
        except OSError as problem:
            message = f"{problem.filename}: cannot write it ({problem.strerror or problem})"
            if self._training.on_save_error == "stop":
                raise CheckpointError(message, hint="The saved states are intact.") from None
            if not self._warned_of_log:
                self._warned_of_log = True
                warning = Warned(f"{message}. Training goes on; this part of the log is missing.")
        yield from events
        if warning is not None:
            yield warning

    def _finished(self, reason: str) -> Finished:
        progress, spent_s = self._session.progress, self._meter.spent_s()
        return Finished(
            step=progress.step,
            loss=progress.loss,
            val_loss=progress.val.loss if progress.val else None,
            bits_per_byte=progress.val.bits_per_byte if progress.val else None,
            tokens_per_s=self._meter.tokens_per_s,
            mfu=self._mfu(self._meter.tokens_per_s),
            elapsed_s=sum(spent_s.values()),
            stalled_s=self._saver.stalled_s,
            spent_s={str(part): seconds for part, seconds in spent_s.items()},
            reason=reason,
            path=str(self._directory.path),
        )
