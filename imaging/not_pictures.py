"""What a file is that cannot be read as a picture: a failed download, a picture of another kind, a wrong suffix."""

from __future__ import annotations

from pathlib import Path

# Suffixes of files that show something, but are not read. They must not vanish unseen.
OTHER_PICTURES = {".gif", ".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".tga", ".exr", ".hdr", ".pfm", ".dng"}
OTHER_PICTURES |= {".raw", ".cr2", ".nef", ".arw", ".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".lif", ".nd2", ".vsi"}
OTHER_PICTURES |= {".mha", ".mhd", ".nrrd", ".mgz", ".img", ".npy", ".npz", ".mat", ".pam", ".ras", ".dib", ".eps"}
CONVERT = "which is not read; convert it to PNG"
BEGINNINGS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the image; run: git lfs pull",
    b"%PDF": f"is a PDF, {CONVERT}",
    b"%!PS": f"is PostScript, {CONVERT}",
    b"8BPS": f"is a Photoshop file, {CONVERT}",
    b"PK\x03\x04": "is a ZIP archive, not an image",
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"\xff\x0a": f"is a JPEG XL picture, {CONVERT}",
    b"\0\0\0\x0cJXL ": f"is a JPEG XL picture, {CONVERT}",
}
HEIF = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def what_else(path: Path) -> str:
    """What the file is, in words that follow its name; "" if nothing is known of it."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    start = content[:512].lstrip()
    if not content:
        return "is empty (0 bytes)"
    if not content.strip(b"\0"):
        return "holds nothing but zero bytes"
    if start.lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page (HTML), not an image: its download failed"
    for beginning, told in BEGINNINGS.items():
        if content.startswith(beginning):
            return told
    if content[4:8] == b"ftyp" and content[8:12] in HEIF:
        return f"is a HEIC picture, {CONVERT}"
    if content[128:132] == b"DICM":
        return "is a DICOM file; end its name in .dcm"
    if start.startswith((b"<", b"{")) and start.decode("latin-1").isprintable():
        return f"is text, not an image ({start[:40].decode('latin-1')})"
    return _odd_jpeg(content)


def _odd_jpeg(content: bytes) -> str:
    """A JPEG of more than 8 bits, or a lossless one."""
    at = 2
    while content.startswith(b"\xff\xd8") and content[at : at + 1] == b"\xff" and at + 9 < len(content):
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the header of a frame
            kind = "a lossless JPEG" if marker in (0xC3, 0xC7, 0xCB, 0xCF) else "a JPEG"
            bits = content[at + 4]
            return f"is {kind} of {bits} bits, {CONVERT}" if bits > 8 or kind != "a JPEG" else ""
        at += 2 + length
    return ""
