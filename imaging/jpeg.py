"""The compressed pixels of DICOM files that neither pydicom nor Pillow decodes, by imagecodecs: a plugin of pydicom.

JPEG Lossless, JPEG Extended of 12 bits, JPEG-LS, JPEG 2000 of more than 8 bits per colour, High-Throughput JPEG 2000.
Of pydicom's own plugins, GDCM reads no 12 bits and ends the whole process on some damaged streams, and that part of
pylibjpeg which decodes JPEG is under the GPL; imagecodecs (BSD) is libjpeg-turbo, CharLS and OpenJPEG.
"""

from __future__ import annotations

import contextlib
import importlib.util
import struct

PLUGIN = "imagecodecs"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{k}" for k in (90, 91, 201, 202, 203))
_DECODERS = {
    **dict.fromkeys(("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"), "jpeg8_decode"),
    **dict.fromkeys(_JPEG_LS, "jpegls_decode"),
    **dict.fromkeys(JPEG_2000, "jpeg2k_decode"),
}
DECODER_DEPENDENCIES = dict.fromkeys(_DECODERS, (PLUGIN,))  # pydicom asks for this name and the next


def is_available(uid: str) -> bool:
    """Whether frames of this transfer syntax can be decoded here."""
    return uid in _DECODERS and importlib.util.find_spec(PLUGIN) is not None


def is_missing(uid: str) -> bool:
    """Whether they could be, were the library installed."""
    return uid in _DECODERS and not is_available(uid)


def register(decoder) -> None:
    """Make this module a plugin of pydicom's decoder of one transfer syntax, once; of others it leaves them alone."""
    known = (*decoder.available_plugins, *(line.partition(" ")[0] for line in decoder.missing_dependencies))
    if decoder.UID in _DECODERS and PLUGIN not in known:
        with contextlib.suppress(ValueError):  # another thread was faster
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))


def decode_frame(stream: bytes, runner) -> bytes:
    """The pixels of one frame, as pydicom asks a plugin for them.

    Raises ValueError if the stream is of another size than the file says, before memory is taken for it, or if it
    cannot be decoded."""
    import imagecodecs

    rows, columns = size_of(stream)
    if (rows, columns) != (runner.rows, runner.columns):
        raise ValueError(f"its stream holds {rows} x {columns} pixels, not {runner.rows} x {runner.columns}")
    pixels = getattr(imagecodecs, _DECODERS[runner.transfer_syntax])(stream)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):  # undone with the compression
        runner.set_option("photometric_interpretation", "RGB")
    return pixels.tobytes()


def size_of(stream: bytes) -> tuple[int, int]:
    """(rows, columns) that the frame header of a JPEG (ITU T.81, B.2.2), JPEG-LS (T.87) or JPEG 2000 (T.800, A.5.1)
    stream tells. Raises ValueError if there is none."""
    if not stream.startswith(b"\xff\xd8"):
        at = stream.find(b"\xff\x4f\xff\x51") + 8  # in some files behind the boxes of JP2
        if 8 <= at <= len(stream) - 16:
            right, bottom, left, top = struct.unpack(">4I", stream[at : at + 16])
            return bottom - top, right - left
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack(">2H", stream[at + 5 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("its compressed stream has no frame header")
