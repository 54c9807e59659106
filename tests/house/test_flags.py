"""A flag that mirrors a config field says what the field says, and exists once."""

from typing import Any

import pytest
import typer.main

from mypt.cli.app import app
from mypt.cli.train import FLAGS
from mypt.records.evaluation import EvaluationConfig
from mypt.records.run import RunConfig
from mypt.records.sampling import SamplingConfig


def options(command: str) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {parameter.name: parameter for parameter in group.commands[command].params}


@pytest.mark.parametrize(("name", "key"), FLAGS.items())
def test_train_flags_repeat_their_fields_description(name: str, key: str) -> None:
    section, field = key.split(".")
    described = type(getattr(RunConfig(), section)).model_fields[field].description
    assert options("train")[name].help == described


@pytest.mark.parametrize("field", SamplingConfig.model_fields)
def test_generate_has_a_flag_for_every_sampling_setting(field: str) -> None:
    help_text = options("generate")[field].help
    described = SamplingConfig.model_fields[field].description or ""
    assert help_text.split(":")[0].split(" (")[0].rstrip(".") in described + described.rstrip(".")


@pytest.mark.parametrize("field", EvaluationConfig.model_fields)
def test_evaluate_has_a_flag_for_every_setting(field: str) -> None:
    help_text = options("evaluate")[{"input_files": "input_file"}.get(field, field)].help
    described = EvaluationConfig.model_fields[field].description or ""
    assert help_text.split(" (repeatable)")[0].split(": error or")[0].rstrip(".") in described
