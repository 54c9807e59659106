"""MFU against what was published, and peaks against each other and the makers' tables."""

import pytest

from mypt.records.budget import flops_utilization, training_flops_per_token
from mypt.records.model import ModelConfig
from mypt.records.peaks import peak_flops


def test_mfu_of_megatron_turing_nlg_530b_is_the_published_one() -> None:
    """Smith et al. (2022), section 2.4: 60.1 s for 1,920 sequences on 2,240 A100. Chowdhery et al. (2022): 30.2 %."""
    model = ModelConfig(n_layer=105, n_head=128, n_embd=20_480, block_size=2048, vocab_size=51_200, bias=True)
    assert model.parameters == pytest.approx(530e9, rel=2e-3)
    one = peak_flops("NVIDIA A100-SXM4-80GB", "bf16")
    assert one is not None
    mfu = flops_utilization(training_flops_per_token(model), 1920 * 2048 / 60.1, 2240 * one)
    assert mfu == pytest.approx(0.302, abs=6e-4)


def test_mfu_of_palm_540b_is_the_published_one() -> None:
    """Chowdhery et al. (2022), appendix B: 238.3K tokens/s on 6,144 TPU v4 of 275 TFLOP/s are 46.2 %.

    Its heads are narrower than its width, so its FLOPs are written out: 6 N + 12 L H Q T.
    """
    flops_per_token = 6 * 540.35e9 + 12 * 118 * 48 * 256 * 2048
    assert flops_utilization(flops_per_token, 238.3e3, 6144 * 275e12) == pytest.approx(0.462, abs=5e-4)


def test_a_peak_that_is_not_known_gives_no_mfu() -> None:
    assert flops_utilization(1e9, 1e6, None) is None


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3080",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "NVIDIA H100",
    ],
)
def test_a_device_that_only_sounds_like_one_is_unknown(name: str) -> None:
    assert all(peak_flops(name, precision) is None for precision in ("bf16", "fp16", "fp32"))


@pytest.mark.parametrize(
    ("name", "half_tflops", "fp32_tflops"),
    [
        # NVIDIA's white papers: "Peak FP16 Tensor TFLOPS with FP32 Accumulate", dense, and "Peak FP32 TFLOPS".
        ("NVIDIA GeForce RTX 3070", 40.6, 20.3),
        ("NVIDIA GeForce RTX 3090", 71.0, 35.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA GeForce RTX 4080", 97.5, 48.7),
        ("NVIDIA GeForce RTX 5090", 209.5, 104.8),
        ("NVIDIA GeForce RTX 5080", 112.6, 56.3),
    ],
)
def test_geforce_rates_are_those_of_the_white_papers(name: str, half_tflops: float, fp32_tflops: float) -> None:
    assert peak_flops(name, "bf16") == pytest.approx(half_tflops * 1e12, rel=5e-3)
    assert peak_flops(name, "fp32") == pytest.approx(fp32_tflops * 1e12, rel=5e-3)


def test_a_gpu_without_bf16_has_no_peak_in_it() -> None:
    for name in ("Tesla T4", "Tesla V100-SXM2-32GB", "Tesla V100-PCIE-16GB"):
        assert peak_flops(name, "bf16") is None
        assert peak_flops(name, "fp16") is not None


def test_forms_of_the_same_gpu_are_told_apart() -> None:
    forms = ["NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL"]
    assert len({peak_flops(name, "bf16") for name in forms}) == len(forms)
    assert peak_flops("A100-SXM4-40GB", "bf16") == peak_flops("NVIDIA A100-SXM4-40GB", "bf16"), "an old driver's name"
