"""Counter-based randomness: a generator for every name, the same wherever it is asked for.

A row's mask has to be a function of (seed, example id, visit) alone: equal after a resume, with
any number of workers, in any order, and independent of the other rows of its batch. A shared
generator that advances cannot give that; one generator per name can.
"""

import hashlib

import numpy as np

from dpmlm.errors import UserError

_SEED_BYTES = 64


def counter_rng(seed: bytes, *parts: str | int) -> np.random.Generator:
    """The generator that belongs to the name `parts` under `seed`.

    Philox-4x64 (Salmon et al. 2011) keyed by BLAKE2b(key=seed, parts). Parts are tagged with their
    type and length before they are hashed, so ("ab", "c"), ("a", "bc"), 1 and "1" are four names.
    The mask seed is secret where a privacy claim rests on it; Philox itself is not a cipher, so
    noise and sampling never come from here.

    Raises UserError when `seed` is empty or longer than 64 bytes.
    """
    if not 0 < len(seed) <= _SEED_BYTES:
        raise UserError(
            f"a mask seed of {len(seed)} bytes",
            f"a seed has 1 to {_SEED_BYTES} bytes",
            "give 32 random bytes, or a digest of what you have",
        )
    state = hashlib.blake2b(key=seed, digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else str(int(part)).encode()
        state.update(b"s" if isinstance(part, str) else b"i")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(state.digest(), "little")))
