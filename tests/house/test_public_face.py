"""What `import mypt` offers, and that it costs nothing until used."""

import subprocess
import sys
from pathlib import Path

import pytest

import mypt
from mypt.errors import UsageError


def test_the_public_names_are_these() -> None:
    assert mypt.__all__ == ["GPT", "ModelConfig", "__version__", "evaluate", "export", "load", "train"]
    assert dir(mypt) == mypt.__all__
    assert all(getattr(mypt, name) is not None for name in mypt.__all__)


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = mypt.lod


def test_import_wakes_nothing() -> None:
    code = (
        "import sys, mypt; print(len([m for m in ('torch', 'numpy', 'pydantic', 'typer', 'rich') if m in sys.modules]))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "0"


def test_train_and_load_from_python(text_file: Path, tmp_path: Path) -> None:
    settings = {
        "data.tokenization": "char", "training.max_iters": 12, "training.eval_iters": 2, "training.batch_size": 4,
        "training.device": "cpu", "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 16,
    }  # fmt: skip
    names = [e.event for e in mypt.train(str(text_file), model_name="m", checkpoint_dir=tmp_path, settings=settings)]
    assert names.count("step") == 12
    assert names[-1] == "finished"
    model = mypt.load("m", checkpoint_dir=tmp_path, device="cpu")
    first = model.generate("The ", max_new_tokens=20, temperature=0)
    assert len(first) == 20
    assert first == model.generate("The ", max_new_tokens=20, temperature=0)


def test_export_from_python(text_file: Path, tmp_path: Path) -> None:
    settings = {
        "data.tokenization": "char", "training.max_iters": 1, "training.eval_iters": 1, "training.batch_size": 2,
        "training.device": "cpu", "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 16,
    }  # fmt: skip
    list(mypt.train(str(text_file), model_name="m", checkpoint_dir=tmp_path, settings=settings))
    exported = mypt.export("m", tmp_path / "out", checkpoint_dir=tmp_path)
    assert exported.target == str(tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").is_file()
    with pytest.raises(UsageError, match="precision"):
        mypt.export("m", precision="int4", checkpoint_dir=tmp_path)  # type: ignore[arg-type]
