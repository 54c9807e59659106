"""The wheel is whole: presets inside, and the command works without the checkout."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from mypt.records.presets import preset_names

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_wheel_in_a_fresh_environment_lists_the_presets_from_an_empty_folder(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(CHECKOUT),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    # The dependencies are lent by this environment; mypt itself is only in the fresh one.
    dependencies = [line for line in sys.path if line.endswith("site-packages")]
    (site / "lent.pth").write_text("".join(f"{line}\n" for line in dependencies))
    empty = tmp_path / "empty"
    empty.mkdir()
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    where = [str(python), "-c", "import mypt; print(mypt.__file__)"]
    found = subprocess.run(where, cwd=empty, check=True, capture_output=True, text=True).stdout
    assert str(site) in found
    shown = subprocess.run(
        [str(python), "-m", "mypt", "configs"], cwd=empty, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert all(name in shown for name in preset_names())
