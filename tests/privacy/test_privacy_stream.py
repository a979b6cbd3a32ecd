"""The cipher stream: known answers, a naive twin, and a statistical battery."""

import hashlib
import hmac
import statistics
import time
from statistics import NormalDist

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats
from scipy.special import ndtri

from dpmlm.privacy import SecretStream, gaussian_noise
from dpmlm.privacy.stream import BLOCK

KEY = bytes(range(32))
N = 1_000_000


def naive_uniforms(key: bytes, n: int, label: str, step: int) -> list[float]:
    """Counter mode block by block from the bare block cipher, one number at a time."""
    name = b"dpmlm.privacy.stream/1\0" + step.to_bytes(8, "big") + label.encode()
    sub_key = hmac.new(key, name, hashlib.sha256).digest()
    block = Cipher(algorithms.AES(sub_key), modes.ECB()).encryptor()
    numbers: list[float] = []
    for counter in range((n + 1) // 2):
        bits = block.update(counter.to_bytes(16, "big"))
        for half in (bits[:8], bits[8:]):
            numbers.append(((int.from_bytes(half, "little") >> 12) + 0.5) / 2**52)
    return numbers[:n]


def test_the_block_cipher_is_aes_256() -> None:
    """NIST SP 800-38A, F.5.5: first output block of CTR-AES256."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    out = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)
    assert out.hex() == "0bdf7df1591716335e9a8b15c860c502"


def test_known_answer() -> None:
    got = SecretStream(KEY).uniforms(3, "sample", 0)
    assert got.tolist() == naive_uniforms(KEY, 3, "sample", 0)
    assert got.tolist() == [0.8820398709026763, 0.7855613416898685, 0.06555966707882888]


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("n", [0, BLOCK, 8 * BLOCK - 1, 9 * BLOCK + 1, 30 * BLOCK + 12_345])
def test_threads_that_share_the_work_draw_the_same_numbers(n: int, threads: int) -> None:
    whole = SecretStream(KEY).normals(n, "noise/0", 3, std=0.7)
    shared = SecretStream(KEY).normals(n, "noise/0", 3, std=0.7, threads=threads)
    assert np.array_equal(whole, shared)
    assert len(np.unique(whole)) >= 0.99 * n  # no thread begins where another did


def test_known_normals() -> None:
    got = SecretStream(KEY).normals(4, "noise/0", 0).tolist()
    assert got == pytest.approx([NormalDist().inv_cdf(u) for u in NORMALS_FROM], rel=1e-7)
    assert got == [0.06893158704042435, -1.4891393184661865, 0.8396555781364441, -1.531132698059082]


NORMALS_FROM = [0.5274779620420039, 0.06822534883372955, 0.7994492352426333, 0.06286829568655239]


@pytest.mark.parametrize("n", [0, 1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 3])
def test_uniforms_are_the_naive_ones(n: int) -> None:
    assert SecretStream(KEY).uniforms(n, "a", 5).tolist() == naive_uniforms(KEY, n, "a", 5)


@pytest.mark.parametrize("n", [1, 2, BLOCK + 1, 3 * BLOCK])
def test_normals_are_the_inverse_of_the_uniforms(n: int) -> None:
    uniforms = SecretStream(KEY).uniforms(n, "noise", 3)
    normals = SecretStream(KEY).normals(n, "noise", 3, std=2.5)
    assert normals.dtype == np.float32
    assert np.array_equal(normals, (ndtri(uniforms) * 2.5).astype(np.float32))


def test_labels_steps_and_keys_separate_streams() -> None:
    draws = {
        tuple(SecretStream(key).uniforms(4, label, step))
        for key in (KEY, bytes(32))
        for label in ("a", "ab", "")
        for step in (0, 1, 2**40)
    }
    assert len(draws) == 18


def test_a_step_is_drawn_once() -> None:
    stream = SecretStream(KEY)
    stream.normals(4, "noise/0", 3)
    stream.normals(4, "noise/1", 3)
    stream.uniforms(4, "sample", 3)
    for step in (3, 2):
        with pytest.raises(ValueError, match="once"):
            stream.normals(4, "noise/0", step)
    with pytest.raises(ValueError, match="at least 0"):
        stream.uniforms(1, "x", -1)


def test_keys_stay_secret() -> None:
    stream = SecretStream(KEY)
    assert KEY.hex() not in repr(stream)
    with pytest.raises(TypeError):
        stream.__reduce__()
    with pytest.raises(ValueError):
        SecretStream(b"short")
    first, second = (SecretStream.from_os().uniforms(4, "a", 0).tolist() for _ in range(2))
    assert first != second


def test_uniforms_look_uniform() -> None:
    u = SecretStream(KEY).uniforms(N, "u", 0)
    assert 0 < u.min() < u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    bits = (u * 2**52).astype(np.uint64)
    for bit in range(52):
        ones = int(((bits >> np.uint64(bit)) & np.uint64(1)).sum())
        assert abs(ones - N / 2) < 5 * np.sqrt(N) / 2, bit


def test_normals_look_normal() -> None:
    x = SecretStream(KEY).normals(N, "n", 0).astype(np.float64)
    assert stats.kstest(x, "norm").pvalue > 1e-3
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - mean) < 5 * np.sqrt(variance / N), power
    for edge in (2.0, 3.0, 4.0, 4.5):
        expected = 2 * N * stats.norm.sf(edge)
        assert abs((np.abs(x) > edge).sum() - expected) < 5 * np.sqrt(expected), edge
        assert (x > edge).any()
        assert (x < -edge).any()


def test_normals_are_uncorrelated() -> None:
    stream = SecretStream(KEY)
    x = stream.normals(N, "n", 0).astype(np.float64)
    others = [stream.normals(N, "n", 1), stream.normals(N, "m", 0), np.roll(x, 1), np.roll(x, 2)]
    others += [np.roll(x, BLOCK), x[::-1]]
    for other in others:
        assert abs(float(np.mean(x * other))) < 5 / np.sqrt(N)
        assert abs(float(np.mean(x**2 * np.asarray(other) ** 2)) - 1) < 5 * np.sqrt(8 / N)


def test_the_battery_finds_a_bad_generator() -> None:
    rng = np.random.default_rng(0)
    narrow = rng.normal(size=N) * 0.99
    assert stats.kstest(narrow, "norm").pvalue < 1e-3
    assert abs((narrow**2).mean() - 1) > 5 * np.sqrt(2 / N)


def test_noise_tensor() -> None:
    stream = SecretStream(KEY)
    noise = gaussian_noise((300, 200), 0.5, stream, label="noise/w", step=0)
    assert noise.shape == (300, 200)
    assert noise.dtype == torch.float32
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    other = gaussian_noise([300, 200], 0.5, stream, label="noise/b", step=0)
    assert abs(float((noise * other).mean())) < 5 * 0.25 / np.sqrt(60_000)
    assert gaussian_noise((), 1.0, stream, label="scalar", step=0).shape == ()
    assert gaussian_noise((0, 3), 1.0, stream, label="empty", step=0).numel() == 0
    assert not gaussian_noise((3,), 0.0, stream, label="zero", step=0).any()
    for std in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError):
            gaussian_noise((3,), std, stream, label="bad", step=0)


@pytest.mark.full
def test_throughput() -> None:
    """Beside the predictable ones of torch, in turns: how fast a processor is does not matter."""
    stream, n = SecretStream(KEY), 10_000_000
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    for step in range(5):
        for name, draw in (
            ("ours", lambda step=step: stream.normals(n, "n", step)),
            ("torch", lambda: torch.randn(n)),
        ):
            start = time.process_time()  # of one thread, so that a busy machine does not
            draw()
            times[name].append(time.process_time() - start)
    ours, theirs = (statistics.median(times[name]) for name in ("ours", "torch"))
    print(f"{n / ours / 1e6:.1f} M normals a CPU second, torch {n / theirs / 1e6:.1f}")
    assert ours < 4 * theirs
