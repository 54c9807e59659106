"""The log of a run: whole lines only, whatever happened before."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from mypt.core.train.metrics import MetricsLog
from mypt.events import Noted


@pytest.mark.parametrize("torn", ["", '{"event": "no', "x" * 200_000, '{"event": "note"}'])
@pytest.mark.parametrize("lines", [0, 1, 3])
def test_what_a_crash_left_of_a_line_is_cut_off_and_nothing_else(tmp_path: Path, torn: str, lines: int) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = "".join(Noted(f"{number} {'y' * 70_000}").as_json() + "\n" for number in range(lines))
    path.write_text(whole + torn)
    with closing(MetricsLog(path)) as log:
        assert path.read_text() == whole
        log.append(Noted("new"))
    assert path.read_text() == whole + Noted("new").as_json() + "\n"
    assert json.loads(path.read_text().splitlines()[-1]) == {"event": "note", "message": "new"}
