"""What the device does in a step: gradients of the whole batch, clipping, the optimizer, the next working weights.

    batch, in pieces -> losses and gradients -> norm -> weights and moments, if both are numbers

Nothing in it waits for the device, so that steps can be recorded (recorded.py).
"""

import math

import torch

from mypt.core.device import Device
from mypt.core.evaluate.loss import Tensors
from mypt.core.model.compiled import compile_blocks
from mypt.core.model.gpt import GPT
from mypt.core.model.kernels.code import open_kernels, place_in_model
from mypt.core.recording import USUAL_TIMES
from mypt.core.train.optimizer import build_optimizer
from mypt.core.train.recorded import Recorded
from mypt.core.train.scaling import LossScale
from mypt.core.train.schedule import learning_rate
from mypt.core.train.working import WorkingWeights
from mypt.records.batch import even_pieces
from mypt.records.checkpoint import LossScaleState
from mypt.records.run import TrainingConfig


class Update:
    """One optimizer update after another, of one model."""

    def __init__(self, model: GPT, config: TrainingConfig, device: Device, loss_scale: LossScaleState | None) -> None:
        """Take over a model; with fp16, go on with its loss scale."""
        self._parameters = list(model.parameters())
        self._config = config
        self._device = device
        self._kernels = open_kernels() if device.kernels else None
        self._working = WorkingWeights(model, device.precision, self._kernels)
        if device.compiled:
            compile_blocks(self._working.model)
        if self._kernels is not None:
            place_in_model(self._working.model, self._kernels)
        self.scale: LossScale | None = None
        if device.precision == "fp16":
            self.scale = LossScale(loss_scale or LossScaleState(), device.torch)
        self.optimizer = build_optimizer(model, config, device.precision, kernels=device.kernels)
        self.sequences_at_once = config.sequences_at_once
        self._recorded: Recorded | None = None
        # What is passed again with checkpoints reads the state of random numbers, which no recording can.
        if device.kind == "cuda" and config.record_steps and not config.checkpoint_activations:
            self._recorded = Recorded(device.torch)
        if device.kind == "cuda":
            # Also where nothing is recorded: a number and a tensor round otherwise.
            for group in self.optimizer.groups:
                group.lr = torch.zeros((), device=device.torch)

    @property
    def working_model(self) -> GPT:
        """The model with the weights that are computed with."""
        return self._working.model

    def __call__(self, batch: Tensors, step: int, seed: int) -> torch.Tensor:
        """Do one update. Where loss or gradient is no number, nothing is changed by it.

        Args:
            batch: on the device.
            step: how many were done before.
            seed: of dropout.

        Returns:
            Loss, gradient norm, and in fp16 the loss scale: a vector on the device, which may still be at work on it,
            and overwrites it in the next step.
        """
        for group in self.optimizer.groups:
            rate = learning_rate(group.peak_lr, step, self._config)
            if isinstance(group.lr, torch.Tensor):
                group.lr.fill_(rate)
            else:
                group.lr = rate
        self.optimizer.make_moments()
        if self._recorded is not None:
            return self._recorded.do(self._on_device, batch, seed)
        if self._device.kind == "cpu":
            torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every kind of device, each for longer
        else:
            torch.manual_seed(seed)
        return self._on_device(batch)

    @property
    def steps_to_prepare(self) -> int:
        """How many first steps take longer than all others."""
        return 1 if self._recorded is None else USUAL_TIMES + 1

    def close(self) -> None:
        """Give back what steps keep for each other."""
        if self._recorded is not None:
            self._recorded.forget()

    def halve(self) -> None:
        """From now on take half as many sequences at once, or less; a step learns from as many as before."""
        self.sequences_at_once = even_pieces(self._config.batch_size, -(-self.sequences_at_once // 2))
        if self._recorded is not None:
            self._recorded.forget()
        if self._device.kind == "cuda":
            torch.cuda.empty_cache()

    def _on_device(self, batch: Tensors) -> torch.Tensor:
        try:
            loss = self._backward(batch)
            norm = self._clip()
            vitals = torch.stack([loss, norm] if self.scale is None else [loss, norm, self.scale.factor])
            # Where this is 1 the optimizer leaves weights and moments alone.
            self.optimizer.found_inf = (~vitals.isfinite().all()).float()
            self.optimizer.step()
            self._working.refresh()
        finally:
            for part in self._parameters:
                part.grad = None
            self._working.forget()
        if self.scale is not None:
            self.scale.step(loss, norm)
        return vitals

    def _clip(self) -> torch.Tensor:
        """Make gradients shorter that are too long together, and give the norm they had."""
        most = self._config.grad_clip or math.inf
        if self._kernels is None:
            return torch.nn.utils.clip_grad_norm_(self._parameters, most)
        return torch.tensor(self._kernels.calls.clip(self._gradients(), most))

    def _gradients(self) -> list[torch.Tensor]:
        return [part.grad for part in self._parameters if part.grad is not None]

    def _backward(self, batch: Tensors) -> torch.Tensor:
        """Add up the gradients of the whole batch, some sequences at a time; give its mean loss."""
        predicted = batch.predicted()
        scale = None if self.scale is None else self.scale.factor
        losses: list[torch.Tensor] = []
        for piece in batch.split(self.sequences_at_once):
            loss = self._working.model.loss(*piece, predicted=predicted, scale=scale)
            loss.backward()
            self._working.gather()
            losses.append(loss.detach())
        if self.scale is not None:
            self.scale.undo(self._gradients())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
