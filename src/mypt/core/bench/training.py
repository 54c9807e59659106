"""Training steps as `mypt train` does them, on random tokens: batch, forward, backward, clipping, update, reading."""

from contextlib import closing

import numpy as np

from mypt.core.bench.machine import device_of, matrix_flops_per_s, median_step_s, peak_bytes
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.device import Device, deterministic
from mypt.core.train.memory import clear_shortage
from mypt.core.train.start import Origin, begin
from mypt.records.bench import Job, TrainingFigures
from mypt.records.budget import flops_utilization, training_flops_per_token
from mypt.records.peaks import peak_flops
from mypt.records.run import RunConfig
from mypt.records.tokenizer import ByteSpec

_TOKENS = 200_000
_FEWEST_WINDOWS = 8
_DOCUMENT_TOKENS = 1000
_STEPS_TOGETHER = 10


def training_figures(job: Job) -> TrainingFigures:
    """Do steps for some seconds.

    Raises:
        MemoryShortageError: when they do not fit.
    """
    config = job.config
    device = device_of(config)
    with deterministic(), clear_shortage(config, device):
        tokens_per_s = _tokens_per_s(config, device, job.seconds)
        peak = peak_bytes(device)  # before the matrices below
        rate = matrix_flops_per_s(device, job.seconds)
    known_peak = peak_flops(device.name, device.precision)
    return TrainingFigures(
        tokens_per_s=tokens_per_s,
        peak_bytes=peak,
        precision=device.precision,
        matrix_flops_per_s=rate,
        mfu=flops_utilization(training_flops_per_token(config.model), tokens_per_s, known_peak),
    )


def random_corpus(config: RunConfig) -> Corpus:
    """Tokens that mean nothing, in documents of a thousand; nothing is read from disk or network."""
    model = config.model
    count = max(_TOKENS, _FEWEST_WINDOWS * (model.block_size + 1))
    ids = np.random.default_rng(1).integers(model.vocab_size, size=count, dtype=np.uint32)
    ends = np.arange(_DOCUMENT_TOKENS, count + _DOCUMENT_TOKENS, _DOCUMENT_TOKENS).clip(max=count)
    return Corpus(ByteSpec(), TokenStream([MemoryShard(ids, ends)]), TokenStream([]), "random")


def _tokens_per_s(config: RunConfig, device: Device, seconds: float) -> float:
    # Where the device is ahead of what is read, single steps have no time of their own.
    steps = _STEPS_TOGETHER if device.steps_ahead else 1
    with closing(begin(config, random_corpus(config), Origin(), device)) as session:

        def train() -> None:
            for _ in range(steps):
                session.train_step()
                session.read(device.steps_ahead)
            session.read()

        return steps * session.tokens_per_step / median_step_s(train, seconds)
