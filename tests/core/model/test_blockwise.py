"""Attention by blocks is attention. Its gradients, and its compiled code, need a GPU: tests/gpu."""

import pytest
import torch

from mypt.core.model.attention import attend, attention_mask
from mypt.core.model.blockwise import attend_blockwise, block_mask, does_blockwise

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("T", [1, 5, 128, 200])
def test_blocks_show_what_the_mask_shows(T: int, documents: bool) -> None:
    torch.manual_seed(1)
    ids_BT = torch.zeros(2, T, dtype=torch.long)
    documents_BT = (torch.rand(2, T) < 0.05).cumsum(1) if documents else None
    query, key, value = torch.randn(3, 2, 3, T, 16)
    mixed = attend_blockwise(query, key, value, block_mask(ids_BT, documents_BT))
    torch.testing.assert_close(mixed, attend(query, key, value, attention_mask(ids_BT, documents_BT)))


def test_blocks_are_for_narrow_numbers_on_a_gpu_without_dropout() -> None:
    gpu, bf16 = torch.device("cuda"), torch.bfloat16
    assert does_blockwise(64, bf16, gpu, 0.0)
    for refused in ((48, bf16, gpu, 0.0), (64, torch.float32, gpu, 0.0), (64, bf16, gpu, 0.1)):
        assert not does_blockwise(*refused)
    assert not does_blockwise(64, bf16, torch.device("cpu"), 0.0)
