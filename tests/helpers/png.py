"""A PNG's size and brightness, by the standard library."""

import struct
import zlib


def size(data):
    """(width, height) in pixels."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def rows(data):
    """The bytes of each row, filters undone; 8 bits a channel, not interlaced.

    PNG specification, 9.2.
    """
    width, height = size(data)
    depth, colour, _, _, interlaced = data[24:29]
    assert (depth, interlaced) == (8, 0)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    raw, length = zlib.decompress(_stream(data)), width * channels
    former = bytes(length)
    for at in range(height):
        kind, *line = raw[at * (length + 1) : (at + 1) * (length + 1)]
        for i in range(length):
            left, above, corner = (
                (line[i - channels], former[i], former[i - channels])
                if i >= channels
                else (0, former[i], 0)
            )
            line[i] = (line[i] + _predicted(kind, left, above, corner)) & 255
        former = bytes(line)
        yield [former[i : i + min(channels, 3)] for i in range(0, length, channels)]


def _stream(data):
    at, found = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        found += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return found


def _predicted(kind, left, above, corner):
    if kind == 4:
        near = left + above - corner
        return min((left, above, corner), key=lambda one: abs(near - one))
    return (0, left, above, (left + above) // 2)[kind]
