"""How a command starts."""

import gc

import pytest

from mypt.cli.starting import keeping_all


def test_garbage_is_looked_for_again_after_the_start_however_it_ends() -> None:
    def begin() -> None:
        with keeping_all():
            assert not gc.isenabled()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert gc.isenabled()
    gc.unfreeze()
