"""Safetensors headers, read without torch."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mypt.core.checkpoint.header import read_header
from mypt.errors import CheckpointError


def test_names_types_and_shapes_are_those_that_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(3, 4), "y": torch.zeros(5, dtype=torch.bfloat16)}, path, metadata={"format": "pt"})
    header = read_header(path)
    assert {name: (info.dtype, info.shape, info.elements) for name, info in header.items()} == {
        "x": ("F32", (3, 4), 12),
        "y": ("BF16", (5,), 5),
    }


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 64, b"\x05\0\0\0\0\0\0\0[1,2]", b"\x02\0\0\0\0\0\0\0{", b"PK\x03\x04 zip"]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(path)
