"""Small PNG and TIFF files for the tests, written and read with the standard library only."""
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, channels, value):
    """An 8-bit PNG; value(x, y) gives a number or a tuple of channels numbers."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            pixel = value(x, y)
            rows += bytes(pixel) if channels == 3 else bytes([pixel])
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return (SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(rows))) +
            _chunk(b"IEND", b""))


def png_header(data):
    """(width, height, bits, colour type) of a PNG."""
    assert data[:8] == SIGNATURE, "not a PNG"
    return struct.unpack(">IIBB", data[16:26])


def tiff(width, height, pages):
    """An 8-bit grey TIFF, a page for each string of width * height bytes."""
    data = bytearray(b"II*\0\0\0\0\0")
    link = 4  # where the offset of the next directory goes
    for page in pages:
        strip = len(data)
        data += page + b"\0" * (len(page) % 2)
        struct.pack_into("<I", data, link, len(data))
        entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1),
                   (273, 4, strip), (277, 3, 1), (278, 4, height), (279, 4, len(page))]
        data += struct.pack("<H", len(entries))
        for tag, kind, value in entries:
            data += struct.pack("<HHII", tag, kind, 1, value)
        link = len(data)
        data += b"\0\0\0\0"
    return bytes(data)


def texture(x, y):
    """A grey value without pattern, for images that need not mean anything."""
    return (x * x * 3 + y * 29 + x * y * 7 + (x // 5) * 31) % 251
