"""A registry as somebody else reads it, and a byte of it changed."""

from pathlib import Path

from dpmlm.release.registry.local import Registry


def again(registry, keys, **changed) -> Registry:
    """The same registry, read by somebody else."""
    return Registry(registry.folder, **{"trusted_keys": keys.trusted, **changed})


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
