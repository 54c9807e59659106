"""The same documents in any kind of file, whole or in many, give the same dataset byte for byte."""

from pathlib import Path

import pytest

from mypt.records.run import DataConfig
from preparation import COMPRESSIONS, careless_disk, fingerprints, prepared, small_units, write_jsonl, write_parquet

TEXTS = [f'Document {n}: naïve ☕,\n"quoted" <|endoftext|>\r\n' * (1 + n % 4) for n in range(120)]


@pytest.fixture(autouse=True)
def units(monkeypatch: pytest.MonkeyPatch) -> None:
    small_units(monkeypatch, 1500)
    careless_disk(monkeypatch)


def write_csv(path: Path) -> Path:
    rows = ['"{}"\n'.format(text.replace('"', '""')) for text in TEXTS]
    path.write_bytes("".join(["text\n", *rows]).encode())
    return path


def sources(folder: Path) -> dict[str, tuple[str, ...]]:
    # Every way to say the same documents in the same order.
    folder.mkdir()
    plain = {
        "jsonl": write_jsonl(folder / "a.jsonl", TEXTS),
        "csv": write_csv(folder / "a.csv"),
        "txt": folder / "a.txt",
    }
    plain["txt"].write_bytes("§".join(TEXTS).encode())
    packed = {
        f"{name}{suffix}": folder / f"packed.{name}{suffix}" for name in plain for suffix in COMPRESSIONS if suffix
    }
    for name, path in packed.items():
        path.write_bytes(COMPRESSIONS[path.suffix](plain[name.split(".")[0]].read_bytes()))
    found: dict[str, tuple[str, ...]] = {name: (str(path),) for name, path in (plain | packed).items()}
    found["parquet"] = (str(write_parquet(folder / "a.parquet", TEXTS, rows_per_group=7)),)
    found["hf"] = (f"hf://json?data_files={plain['jsonl']}",)
    (folder / "single").mkdir()
    for number, text in enumerate(TEXTS):
        (folder / "single" / f"{number:03d}.txt").write_bytes(text.encode())
    found["folder"] = (str(folder / "single"),)
    found["halves"] = (
        str(write_jsonl(folder / "first.jsonl", TEXTS[:50])),
        str(write_parquet(folder / "second.parquet", TEXTS[50:])),
    )
    return found


def test_the_same_documents_in_any_kind_of_file_give_the_same_shards(tmp_path: Path) -> None:
    made: dict[str, dict[str, str]] = {}
    for name, files in sources(tmp_path / "texts").items():
        separator = "§" if name.startswith("txt") else None
        config = DataConfig(input_files=files, tokenization="byte", val_fraction=0.2, document_separator=separator)
        prepared(config, tmp_path / name, 5000)
        made[name] = fingerprints(tmp_path / name)
    assert len(made) == 16
    assert any(path.startswith("val/") for path in made["jsonl"])
    assert {name: made[name] == made["jsonl"] for name in made} == dict.fromkeys(made, True)
