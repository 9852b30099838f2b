"""MAT-files of MATLAB, version 5, as far as SBD needs them: one field, a numeric array, of one structure.

scipy's reader ends the whole process on some damaged files. The format is that of "MAT-File Format", The MathWorks
(https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf): elements of a type, a length and their content.
"""

import zlib
from collections.abc import Iterator

import numpy as np

MOST = 10_000_000  # bytes of what is compressed
MATRIX, COMPRESSED = 14, 15  # types of elements
STRUCT = 2  # class of an array
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
Element = tuple[int, bytes]  # type and content


def read_mat(content: bytes, variable: str, field: str) -> np.ndarray:
    """Return a field of the structure ``variable``; ``ValueError`` where there is none, or the file is damaged."""
    if content[126:128] != b"IM":
        raise ValueError("no MAT-file of version 5, little-endian")
    for kind, part in _elements(content[128:]):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            part = unpacker.decompress(part, MOST)
            if not unpacker.eof:
                raise ValueError(f"a compressed part is cut short, or has more than {MOST:,} bytes")
            kind, part = next(_elements(part))
        flags, _, name, *rest = (inner for _, inner in _elements(part)) if kind == MATRIX else (b"", b"", b"")
        if name.decode("latin-1") == variable and flags[:1] == bytes([STRUCT]):
            length, names, *values = rest
            width = int.from_bytes(length, "little")
            titles = [names[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), width)]
            return _array(values[titles.index(field)])
    raise ValueError(f"no structure {variable}")


def _elements(content: bytes) -> Iterator[Element]:
    """Split what a file or an element holds; an element begins at a multiple of 8 bytes, a short one has no padding."""
    at = 0
    while at + 8 <= len(content):
        kind, length = (int.from_bytes(content[at + i : at + i + 4], "little") for i in (0, 4))
        if kind >> 16:  # a short one: the length stands in the upper half
            kind, length, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            begin, end = at + 8, at + 8 + length + (0 if kind == COMPRESSED else -length % 8)
        if begin + length > len(content):
            raise ValueError("a part is cut short")
        yield kind, content[begin : begin + length]
        at = end


def _array(content: bytes) -> np.ndarray:
    """Return a numeric array; its elements stand column by column."""
    (_, _), (_, shape), (_, _), (kind, values) = list(_elements(content))[:4]
    dimensions = np.frombuffer(shape, "<i4").tolist()
    return np.frombuffer(values, NUMBERS[kind]).reshape(dimensions, order="F")
