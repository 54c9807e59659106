"""mypt configs: the presets."""

from typing import Annotated

import typer

from mypt.cli.options import ConfigFile, Json, option


def configs(
    config_file: ConfigFile = None,
    json: Json = False,
    configs_dir: Annotated[str | None, option("--configs-dir", help="", hidden=True)] = None,
) -> None:
    """List the presets: sizes, memory, and what each is for."""
    del configs_dir  # the original's option: presets travel inside the package now
    from mypt.cli.tables import show_configs, show_preset
    from mypt.records.presets import find_config, load_preset, preset_names
    from mypt.records.reports import ConfigsReport, preset_entry
    from mypt.records.resolve import Layer, resolve

    if config_file is not None:
        source, values = find_config(config_file)
        config = resolve([Layer(source, values)], where=source).config
        if json:
            typer.echo(config.as_json())
        else:
            show_preset(source, config)
        return
    report = ConfigsReport(presets=tuple(preset_entry(name, load_preset(name)) for name in preset_names()))
    if json:
        typer.echo(report.model_dump_json(indent=2, by_alias=True))
    else:
        show_configs(report)
