"""quickstart: from nothing to a small model in a few minutes, on text every Python carries.

standard library's documentation -> a model sized for the time -> training -> a sample
"""

import re
import sysconfig
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from inspect import cleandoc
from pathlib import Path
from typing import Literal

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.corpus import read_corpus
from mypt.core.device import Device
from mypt.core.generate.loaded import load_model
from mypt.core.train.pace import on_a_copy, seconds_per_step
from mypt.core.train.run import train
from mypt.core.train.start import run_device
from mypt.durable import write_text
from mypt.events import Event, Finished, Noted, result_of
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, RunConfig, TrainingConfig
from mypt.records.sampling import SamplingConfig

Flavour = Literal["docs", "code"]

_LONGEST_CODE_CHARS = 6_000_000
_EVALUATIONS, _EVALUATED_BATCHES = 8, 8
"""Together they take a fortieth of the time."""
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__pycache__",
}


def quickstart(
    directory: ModelDirectory, *, minutes: float, flavour: Flavour, seed: int, device: str, stop: Callable[[], bool]
) -> Generator[Event]:
    """Train a small character model for about `minutes` and let it write.

    Args:
        directory: where the model goes; an older quickstart is set aside.
        minutes: training time; reading, evaluation and sampling come on top.
        flavour: 'docs' (docstrings and language reference) or 'code' (library sources).
        seed: the same seed gives the same model for the same number of steps.
        device: as in TrainingConfig.
        stop: asked after every step.
    """
    text_path = directory.path.parent / f"{directory.name}-{flavour}.txt"
    text_path.parent.mkdir(parents=True, exist_ok=True)
    text = library_docs() if flavour == "docs" else library_code()
    write_text(text_path, text)
    yield Noted(f"text: {_DESCRIPTIONS[flavour]}, {len(text) / 1e6:.1f} million characters ({text_path})")
    config = quickstart_config(text_path, seed, device)
    yield Noted("measuring how fast this machine is …")
    here = yield from run_device(config, None)
    step_s = _seconds_per_step(config, here, minutes * 60)
    steps = max(50, round(minutes * 60 / step_s))
    yield Noted(f"a step takes {step_s * 1000:.0f} ms, so {steps:,} steps fill about {minutes:g} min")
    interval = max(10, -(-steps // _EVALUATIONS))
    training = config.training.model_copy(update={"max_iters": steps, "eval_interval": interval})
    config = config.model_copy(update={"training": training})
    with closing(train(config, directory, fresh=True, stop=stop)) as events:
        for event in events:
            yield event
            if isinstance(event, Finished) and stop():
                return
    # What was just saved is whole: there is nothing to warn of.
    loaded = load_model(directory, device, lambda _: None)
    settings = SamplingConfig(max_new_tokens=500, temperature=0.7, top_k=40, seed=seed)
    yield from loaded.stream(_PROMPTS[flavour], settings)


def quickstart_config(text_path: Path, seed: int, device: str) -> RunConfig:
    """A model that two laptop cores teach to spell, and to call, in two minutes."""
    return RunConfig(
        name="quickstart",
        model=ModelConfig(family="modern", n_layer=3, n_head=2, n_embd=128, block_size=128, rope_base=1000),
        training=TrainingConfig(
            optimizer="muon",
            learning_rate=0.04,
            schedule="wsd",
            warmup_iters=0,
            min_lr_ratio=0,
            grad_clip=0,
            batch_size=16,
            eval_iters=_EVALUATED_BATCHES,
            seed=seed,
            device=device,
            compile="off",  # a minute is too short for it
        ),
        data=DataConfig(input_files=(str(text_path),), tokenization="char", val_fraction=0.05),
    )


def library_docs() -> str:
    """The language reference that `help()` shows, and every docstring of the standard library."""
    from pydoc_data.topics import topics

    return _tidy("\n\n".join([*topics.values(), *_docstrings()]))


def library_code() -> str:
    """Sources of the standard library, up to a few million characters."""
    texts: list[str] = []
    size = 0
    for path in _library_sources():
        source = _read_source(path)
        texts.append(source)
        size += len(source)
        if size > _LONGEST_CODE_CHARS:
            break
    return "\n\n".join(texts)


_DESCRIPTIONS = {"docs": "Python's own documentation", "code": "Python's own source code"}
_PROMPTS = {"docs": "Return ", "code": "def "}

# Definitions on one line with a docstring below: a pattern finds them ten times faster than a parser.
_DOCUMENTED = re.compile(r'^[ \t]*(?:def|class) (\w+[^\n]*):\n\s+[rR]?"""(.+?)"""', re.MULTILINE | re.DOTALL)


def _docstrings() -> Iterator[str]:
    """Each documented function or class as help() shows it: its call shape, then its docstring."""
    for path in _library_sources():
        for shape, docstring in _DOCUMENTED.findall(_read_source(path)):
            yield f"{shape}\n{cleandoc(docstring)}"


def _tidy(text: str) -> str:
    """Drop table rules and long gaps: a small model would learn little else to draw."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"^[-=+|*~^. ]{4,}$", "", text, flags=re.MULTILINE))


def _library_sources() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(path.relative_to(root).parts))
    return sorted(paths)


def _read_source(path: Path) -> str:
    """A source file as text without characters beyond ASCII: fewer characters learn faster."""
    return path.read_text(encoding="utf-8", errors="ignore").encode("ascii", "ignore").decode()


def _seconds_per_step(config: RunConfig, device: Device, duration_s: float) -> float:
    corpus = result_of(read_corpus(config.data))  # the run itself will tell of it
    model = config.model.model_copy(update={"vocab_size": corpus.spec.vocab_size})
    config = config.model_copy(update={"model": model})
    return result_of(on_a_copy(config, device, corpus, lambda session: seconds_per_step(session, duration_s)))
