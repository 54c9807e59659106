"""What GPUs could do at most, as their makers say it: the denominator of MFU. No torch.

Dense products only: sparsity doubles the numbers on many data sheets, and no training has it. Products of bf16 and
fp16 add up in fp32, as torch does it, which GeForce cards do at half their best rate. fp32 is full fp32, on the
ordinary cores: TF32 is never switched on. A name is the driver's, whole: 'RTX 4090 D', a laptop's 'RTX 4090 Laptop GPU'
and a slice of a GPU ('… MIG 1g.10gb') are other devices. What is not here is unknown, which is better than wrong.
"""

from typing import NamedTuple


class Peaks(NamedTuple):
    """Dense FLOP/s of a GPU; None where it has no such products, or where nothing certain is known."""

    bf16: float | None
    fp16: float | None
    fp32: float | None


def peak_flops(gpu: str, precision: str) -> float | None:
    """Dense peak in FLOP/s, None where it is not known.

    Args:
        gpu: the device's name, as torch.cuda.get_device_name gives it.
        precision: 'bf16', 'fp16' or 'fp32'.
    """
    # Drivers before 2021 left the maker out.
    peaks = _PEAKS.get(gpu.removeprefix("NVIDIA "))
    return getattr(peaks, precision, None)


def _tensor(half_tflops: float, fp32_tflops: float | None, *, bf16: bool = True) -> Peaks:
    half = half_tflops * 1e12
    return Peaks(half if bf16 else None, half, None if fp32_tflops is None else fp32_tflops * 1e12)


def _geforce(cores: int, boost_mhz: int) -> Peaks:
    """Each core does one multiplication and addition a clock in fp32; tensor cores, adding in fp32, twice as many.

    So it is for all chips of the three generations: NVIDIA Ampere GA102, Ada and RTX Blackwell GPU architecture white
    papers, tables of peak rates ("FP16 Tensor TFLOPS with FP32 Accumulate", without sparsity).
    """
    fp32 = 2.0 * cores * boost_mhz * 1e6
    return Peaks(2 * fp32, 2 * fp32, fp32)


_V100, _V100_PCIE = _tensor(125, 15.7, bf16=False), _tensor(112, 14.0, bf16=False)
_A100 = _tensor(312, 19.5)
_H100, _GH200 = _tensor(989.4, 66.9), _tensor(989.4, 67)

_PEAKS: dict[str, Peaks] = {
    # NVIDIA V100 Tensor Core GPU data sheet.
    "Tesla V100-SXM2-16GB": _V100,
    "Tesla V100-SXM2-32GB": _V100,
    "Tesla V100-PCIE-16GB": _V100_PCIE,
    "Tesla V100-PCIE-32GB": _V100_PCIE,
    "Tesla V100S-PCIE-32GB": _tensor(130, 16.4, bf16=False),
    # NVIDIA T4 Tensor Core GPU data sheet.
    "Tesla T4": _tensor(65, 8.1, bf16=False),
    # NVIDIA A100 Tensor Core GPU data sheet.
    "A100-SXM4-40GB": _A100,
    "A100-SXM4-80GB": _A100,
    "A100-PCIE-40GB": _A100,
    "A100-PCIE-80GB": _A100,
    "A100 80GB PCIe": _A100,
    # NVIDIA A10 Tensor Core GPU data sheet; NVIDIA A10G data sheet of AWS, another chip of half its rate.
    "A10": _tensor(125, 31.2),
    "A10G": _tensor(70, 35),
    # NVIDIA H100 Tensor Core GPU architecture white paper; its NVL: H100 data sheet, without the sparsity there.
    "H100 80GB HBM3": _H100,
    "H100 PCIe": _tensor(756, 51.2),
    "H100 NVL": _tensor(835.5, 60),
    # NVIDIA H200 Tensor Core GPU data sheet and GH200 Grace Hopper data sheet, without the sparsity there.
    "H200": _tensor(989.4, 67),
    "H200 NVL": _tensor(835.5, 60),
    "GH200 120GB": _GH200,
    "GH200 480GB": _GH200,
    "GH200 144G HBM3e": _GH200,
    # NVIDIA Blackwell data sheet (HGX B200), without the sparsity there; its fp32 differs between editions.
    "B200": _tensor(2250, None),
    # NVIDIA L4, L40 and L40S data sheets, without sparsity.
    "L4": _tensor(121, 30.3),
    "L40": _tensor(181.05, 90.5),
    "L40S": _tensor(362.05, 91.6),
    # AMD Instinct MI300X data sheet.
    "AMD Instinct MI300X": _tensor(1307.4, 163.4),
    # NVIDIA's pages of specifications: CUDA cores and boost clock. Two cards are called RTX 3080, so it is not here.
    "GeForce RTX 3060": _geforce(3584, 1777),
    "GeForce RTX 3060 Ti": _geforce(4864, 1665),
    "GeForce RTX 3070": _geforce(5888, 1725),
    "GeForce RTX 3070 Ti": _geforce(6144, 1770),
    "GeForce RTX 3080 Ti": _geforce(10_240, 1665),
    "GeForce RTX 3090": _geforce(10_496, 1695),
    "GeForce RTX 3090 Ti": _geforce(10_752, 1860),
    "GeForce RTX 4060": _geforce(3072, 2460),
    "GeForce RTX 4060 Ti": _geforce(4352, 2535),
    "GeForce RTX 4070": _geforce(5888, 2475),
    "GeForce RTX 4070 SUPER": _geforce(7168, 2475),
    "GeForce RTX 4070 Ti": _geforce(7680, 2610),
    "GeForce RTX 4070 Ti SUPER": _geforce(8448, 2610),
    "GeForce RTX 4080": _geforce(9728, 2505),
    "GeForce RTX 4080 SUPER": _geforce(10_240, 2550),
    "GeForce RTX 4090": _geforce(16_384, 2520),
    "GeForce RTX 5060": _geforce(3840, 2497),
    "GeForce RTX 5060 Ti": _geforce(4608, 2572),
    "GeForce RTX 5070": _geforce(6144, 2512),
    "GeForce RTX 5070 Ti": _geforce(8960, 2452),
    "GeForce RTX 5080": _geforce(10_752, 2617),
    "GeForce RTX 5090": _geforce(21_760, 2407),
}
