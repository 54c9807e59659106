"""What the rounds gave, and its sum. No torch."""

from collections import defaultdict

from mypt.records.base import Record
from mypt.records.bench import (
    BenchOptions,
    BenchReport,
    GenerationFigures,
    LeftOutEntry,
    PeerBench,
    PresetBench,
    Spread,
    Survey,
    TrainingFigures,
)
from mypt.records.budget import training_flops_per_token


class Results:
    """Figures by preset and by what was done; each list has one entry a round."""

    def __init__(self, options: BenchOptions) -> None:
        self._options = options
        self.survey: Survey | None = None
        self.imports_s: list[float] = []
        self.first_steps_s: list[float] = []
        self.first_step_preset = ""
        self.left_out: dict[str, str] = {}
        self._trained: defaultdict[str, list[TrainingFigures]] = defaultdict(list)
        self._wrote: defaultdict[str, list[GenerationFigures]] = defaultdict(list)
        self._peers: defaultdict[tuple[str, str], list[TrainingFigures]] = defaultdict(list)

    def add(self, preset: str, what: str, figures: Record) -> None:
        """Take note of one child's figures."""
        if isinstance(figures, GenerationFigures):
            self._wrote[preset].append(figures)
        elif isinstance(figures, TrainingFigures):
            (self._trained[preset] if what == "training" else self._peers[preset, what]).append(figures)

    def report(self) -> BenchReport:
        """Sum up what there is so far."""
        names = [name for name in self._options.configs if name in self._trained or name in self._wrote]
        return BenchReport(
            machine=self.survey.machine if self.survey else None,
            rounds=self._options.rounds,
            seconds=self._options.seconds,
            import_torch_s=Spread.of(self.imports_s),
            first_step_s=Spread.of(self.first_steps_s),
            first_step_preset=self.first_step_preset,
            presets=tuple(self._preset(name) for name in names),
            peers=tuple(self._peer(preset, name) for preset, name in self._peers),
            left_out=tuple(LeftOutEntry(name=name, why=why) for name, why in self.left_out.items()),
        )

    def _preset(self, name: str) -> PresetBench:
        config, trained, wrote = self._options.configs[name], self._trained[name], self._wrote[name]
        flops = training_flops_per_token(config.model)
        shares = [flops * each.tokens_per_s / each.matrix_flops_per_s for each in trained if each.matrix_flops_per_s]
        return PresetBench(
            name=name,
            parameters=config.model.parameters,
            batch_size=config.training.batch_size,
            block_size=config.model.block_size,
            precision=trained[-1].precision if trained else config.training.precision,
            training_flops_per_token=flops,
            tokens_per_s=Spread.of([each.tokens_per_s for each in trained]),
            matrix_share=Spread.of(shares),
            mfu=Spread.of([each.mfu for each in trained if each.mfu is not None]),
            peak_bytes=max((each.peak_bytes for each in trained), default=None),
            estimated_bytes=self.survey.needed_bytes[name] if self.survey else None,
            generation_tokens_per_s=Spread.of([each.tokens_per_s for each in wrote]),
            first_token_s=Spread.of([each.first_token_s for each in wrote]),
        )

    def _peer(self, preset: str, name: str) -> PeerBench:
        """Ratios are taken round by round: what slows the machine down slows both down."""
        theirs = self._peers[preset, name]
        speeds = [each.tokens_per_s for each in theirs]
        spread = Spread.of(speeds)
        assert spread is not None, "a peer is listed with its first figures"
        pairs = zip(self._trained[preset], theirs, strict=False)  # a round may have been cut off between the two
        return PeerBench(
            name=name,
            preset=preset,
            tokens_per_s=spread,
            peak_bytes=max(each.peak_bytes for each in theirs),
            ratio=Spread.of([ours.tokens_per_s / its.tokens_per_s for ours, its in pairs]),
        )
