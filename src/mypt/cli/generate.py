"""mypt generate: load a model, stream its text."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, DeviceName, ModelArgument, ModelName, option, pick_model
from mypt.cli.starting import keeping_all
from mypt.cli.streams import visible

if TYPE_CHECKING:
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.core.generate.loaded import LoadedModel
    from mypt.records.base import Record
    from mypt.records.sampling import LoadingConfig

_CHOICE, _END, _MANY, _OUTPUT = "How tokens are chosen", "When a text ends", "Several texts", "Output"


def generate(
    context: typer.Context,
    name: ModelArgument = None,
    model_name: ModelName = None,
    prompt: Annotated[str | None, option("--prompt", "-p", help="The text to continue.")] = None,
    prompts: Annotated[
        str | None,
        option("--prompts", help="A file with a prompt in each line, or JSON lines; - is stdin.", panel=_MANY),
    ] = None,
    max_new_tokens: Annotated[
        int | None, option("--max-new-tokens", "-n", help="Tokens to add at most.", panel=_END)
    ] = None,
    temperature: Annotated[
        float | None, option("--temperature", "-t", help="0 is greedy; higher is wilder.", panel=_CHOICE)
    ] = None,
    top_k: Annotated[int | None, option("--top-k", help="Sample among the k likeliest tokens.", panel=_CHOICE)] = None,
    top_p: Annotated[
        float | None,
        option("--top-p", help="Sample among the likeliest tokens that hold this probability.", panel=_CHOICE),
    ] = None,
    min_p: Annotated[
        float | None,
        option(
            "--min-p",
            help="Sample among tokens at least this share as likely as the likeliest one.",
            panel=_CHOICE,
        ),
    ] = None,
    typical_p: Annotated[
        float | None,
        option("--typical-p", help="Sample among the most typical tokens that hold this probability.", panel=_CHOICE),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        option(
            "--repetition-penalty",
            help="Make tokens of the prompt and the new text less likely: above 1.",
            panel=_CHOICE,
        ),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        option(
            "--frequency-penalty",
            help="Subtract this from a token's score for each time it was written.",
            panel=_CHOICE,
        ),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        option(
            "--presence-penalty",
            help="Subtract this from the score of every token that was written.",
            panel=_CHOICE,
        ),
    ] = None,
    no_repeat_ngram: Annotated[
        int | None,
        option("--no-repeat-ngram", help="Never write this many tokens in a row a second time.", panel=_CHOICE),
    ] = None,
    beams: Annotated[
        int | None, option("--beams", help="Beam search with this many beams; 1 is none.", panel=_CHOICE)
    ] = None,
    length_penalty: Annotated[
        float | None,
        option(
            "--length-penalty",
            help="Beam search prefers longer texts the higher this is; 0: plain sum.",
            panel=_CHOICE,
        ),
    ] = None,
    seed: Annotated[int | None, option("--seed", help="The same seed gives the same text.", panel=_CHOICE)] = None,
    num_samples: Annotated[int | None, option("--num-samples", help="Samples to draw.", panel=_MANY)] = None,
    batch_size: Annotated[
        int | None,
        option("--batch-size", help="Samples written at once; beams always are.", panel=_MANY),
    ] = None,
    stop: Annotated[
        list[str] | None,
        option("--stop", help="Texts that end a sample; they are not part of it (repeatable).", panel=_END),
    ] = None,
    mode: Annotated[
        str | None, option("--mode", help="basic completes; qa asks and answers; chat does so in turns.")
    ] = None,
    turn: Annotated[
        str | None,
        option("--turn", help="What chat makes of a message, {message}, before the model goes on."),
    ] = None,
    unknown: Annotated[
        str | None, option("--unknown", help="What to do with unknown characters: error or skip.")
    ] = None,
    precision: Annotated[
        str | None,
        option(
            "--precision",
            help="fp32; bf16 or fp16: half of the memory, maybe other texts; auto: what this machine has.",
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        option(
            "--quantize",
            help="int8: weights in 8 bits, a quarter of the memory, and up to four times as fast on CPUs.",
        ),
    ] = None,
    compile: Annotated[  # noqa: A002 - what the option is called
        str | None,
        option(
            "--compile",
            help="Read tokens by compiled code, on CUDA by recorded steps: on, off, or auto: code on CPUs that can.",
        ),
    ] = None,
    device: DeviceName = None,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    logprobs: Annotated[
        int | None,
        option(
            "--logprobs",
            help="Give each token's log-probability, and those of this many likeliest tokens (with --json).",
            panel=_OUTPUT,
        ),
    ] = None,
    show_info: Annotated[bool, option("--show-info", help="Say first what model this is.", panel=_OUTPUT)] = False,
    raw: Annotated[
        bool, option("--raw", help="Send control characters to the terminal as they are.", panel=_OUTPUT)
    ] = False,
    quiet: Annotated[
        bool, option("--quiet", "-q", help="Print the new text and nothing else, but for warnings.", panel=_OUTPUT)
    ] = False,
    json: Annotated[bool, option("--json", help="Print one JSON object per sample on stdout.", panel=_OUTPUT)] = False,
) -> None:
    """Continue a prompt, or many, with a trained model."""
    from mypt.cli.writing import Look, draw_generation, say_what_it_is, show_model_line
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError
    from mypt.records.sampling import LoadingConfig, SamplingConfig

    given = {key: value for key, value in context.params.items() if value is not None}
    config = SamplingConfig.parse(_fields_of(SamplingConfig, given), where="generate")
    loading = LoadingConfig.parse(_fields_of(LoadingConfig, given), where="generate")
    if prompt is not None and prompts is not None:
        raise UsageError("--prompt and --prompts are both given", hint="Give one of them.")
    if config.mode == "chat" and prompts is not None:
        raise UsageError("--prompts: not in a chat, which reads what is said from standard input")
    if logprobs is not None and not (json or prompts is not None):
        raise UsageError("--logprobs has nowhere to go", hint="Add --json.")
    texts = [prompt or ""] if prompts is None else _prompts_of(prompts)
    wanted = pick_model(name, model_name)
    directory = ModelDirectory(checkpoint_dir, "default" if wanted is None else wanted)
    look = Look(quiet=quiet, as_json=json or prompts is not None, raw=raw)

    from mypt.cli.stopping import stop_on_signals

    with stop_on_signals() as stopped:
        started_s = time.monotonic()
        loaded = _load(directory, loading, "auto" if device is None else device)
        if stopped():  # an import may swallow it
            raise typer.Exit(stopped.exit_code)
        load_s = time.monotonic() - started_s
        if show_info:
            about = loaded.snapshot
            show_model_line(directory.name, about.training, about.config, loaded.tokenizer.spec.kind)
        if config.mode == "qa" and not look.quiet:
            say_what_it_is(directory.name)
        if config.mode != "chat":
            draw_generation(loaded.stream(texts, config), config, look, loaded.label, load_s=load_s)
    if config.mode == "chat":  # where Ctrl-C ends an answer, and not the program
        from mypt.cli.chatting import chat
        from mypt.core.generate.chat import Conversation

        chat(Conversation(loaded, config, prompt or ""), look, name=directory.name, load_s=load_s)


def _load(directory: "ModelDirectory", loading: "LoadingConfig", device: str) -> "LoadedModel":
    from mypt.core import wait_awake

    wait_awake()
    with keeping_all():
        from mypt.core.generate.loaded import load_model

        return load_model(
            directory,
            device,
            lambda message: typer.echo(f"Warning: {visible(message)}", err=True),
            precision=loading.precision,
            int8=loading.quantize == "int8",
            compiled=loading.compile,
        )


def _fields_of(record: "type[Record]", given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in record.model_fields}


def _prompts_of(path: str) -> list[str]:
    """The prompts of a file, or of stdin.

    Raises:
        DataError: when it cannot be read, or holds none.
    """
    from mypt.core.generate.prompt import parse_prompts
    from mypt.errors import DataError

    where = "standard input" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return parse_prompts(data.decode("utf-8-sig"), where=where)
    except UnicodeDecodeError as problem:
        raise DataError(f"{where}: not UTF-8 (byte {problem.start:,})", hint="Convert it first.") from None
    except (OSError, ValueError) as problem:
        raise DataError(f"{where}: cannot read it ({getattr(problem, 'strerror', None) or problem})") from None
