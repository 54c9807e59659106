"""Roof: parse, build a record, call one verb, draw. typer and rich live only here."""
