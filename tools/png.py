"""PNG files for the scripts of this folder, with the standard library only: grey, RGB and their alpha
and palette forms are read, grey and RGB written; 8 and 16 bit, not interlaced."""
import os
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Image:
    """width, height, channels (1 or 3), depth (8 or 16), data: rows of samples, 16-bit big-endian."""

    def __init__(self, width, height, channels, depth, data):
        self.width, self.height, self.channels = width, height, channels
        self.depth, self.data = depth, data

    def rgb8(self):
        """The same picture as 8-bit RGB."""
        data = self.data[::2] if self.depth == 16 else self.data
        if self.channels == 1:
            out = bytearray(3 * len(data))
            out[0::3] = out[1::3] = out[2::3] = data
            data = bytes(out)
        return Image(self.width, self.height, 3, 8, bytes(data))


def _unfilter(raw, height, row_bytes, step):
    out, previous, at = bytearray(), bytearray(row_bytes), 0
    for _ in range(height):
        kind, row = raw[at], bytearray(raw[at + 1:at + 1 + row_bytes])
        at += 1 + row_bytes
        if kind == 2:
            row = bytearray((a + b) & 255 for a, b in zip(row, previous))
        elif kind:
            for i in range(row_bytes):
                left = row[i - step] if i >= step else 0
                up = previous[i]
                if kind == 1:
                    guess = left
                elif kind == 3:
                    guess = (left + up) >> 1
                else:
                    corner = previous[i - step] if i >= step else 0
                    p = left + up - corner
                    a, b, c = abs(p - left), abs(p - up), abs(p - corner)
                    guess = left if a <= b and a <= c else up if b <= c else corner
                row[i] = (row[i] + guess) & 255
        out += row
        previous = row
    return out


def _expand_bits(data, width, height, depth):
    """Samples of 1, 2 or 4 bits, one byte each (not scaled)."""
    out, per_row = bytearray(), (width * depth + 7) // 8
    for y in range(height):
        row = data[y * per_row:(y + 1) * per_row]
        for x in range(width):
            bit = x * depth
            out.append(row[bit >> 3] >> (8 - depth - (bit & 7)) & ((1 << depth) - 1))
    return out


def read(path):
    with open(path, "rb") as stream:
        blob = stream.read()
    if blob[:8] != SIGNATURE:
        raise ValueError("%s: not a PNG file" % path)
    at, packed, palette, header = 8, b"", b"", None
    while at + 8 <= len(blob):
        length, kind = struct.unpack(">I4s", blob[at:at + 8])
        body = blob[at + 8:at + 8 + length]
        at += 12 + length
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"PLTE":
            palette = body
        elif kind == b"IDAT":
            packed += body
    if header is None or header[6]:
        raise ValueError("%s: an interlaced or broken PNG" % path)
    width, height, depth, colour = header[:4]
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row_bytes = (width * samples * depth + 7) // 8
    data = _unfilter(zlib.decompress(packed), height, row_bytes, max(1, samples * depth // 8))
    if depth < 8:
        data = _expand_bits(data, width, height, depth)
        if colour == 0:
            data = bytes(v * 255 // ((1 << depth) - 1) for v in data)
        depth = 8
    if colour == 3:
        data = b"".join(palette[3 * i:3 * i + 3] for i in data)
        samples = 3
    if colour in (4, 6):
        size = depth // 8
        step, keep = samples * size, (samples - 1) * size
        data = b"".join(data[i:i + keep] for i in range(0, len(data), step))
        samples -= 1
    return Image(width, height, samples, depth, bytes(data))


def write(path, image):
    """Atomically: a temporary file beside it, then a rename."""
    row_bytes = image.width * image.channels * image.depth // 8
    rows = b"".join(b"\0" + image.data[i * row_bytes:(i + 1) * row_bytes]
                    for i in range(image.height))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", image.width, image.height, image.depth,
                                    2 if image.channels == 3 else 0, 0, 0, 0)),
              (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    with open(path + ".tmp", "wb") as stream:
        stream.write(SIGNATURE)
        for kind, body in chunks:
            stream.write(struct.pack(">I", len(body)) + kind + body
                         + struct.pack(">I", zlib.crc32(kind + body)))
    os.replace(path + ".tmp", path)
