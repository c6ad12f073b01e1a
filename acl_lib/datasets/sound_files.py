"""Sound files a block at a time: whole, or refused with the reason.

libsndfile reads what is left of a cut or damaged file and mostly says nothing. What the formats
themselves know is compared here: the length that a WAV file announces, the checksum, number and end
mark of every page of an Ogg file, the MD5 of the samples of a Flac file, and for all of them the
number of samples. An MP3 file and the samples of a WAV file carry none: a flipped bit there is a
sound.
"""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32, Int32

BLOCK = 1 << 18  # samples in memory at a time, so that an hour-long recording fits as well
RATES = 1_000, 1_000_000  # samples a second; a damaged header may claim any
STREAMED = {0, *range(0x7FFFFF00, 0x80000001), *range(0xFFFFFF00, 0x100000000)}  # length unknown
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class SoundFileError(ValueError):
    """A file that is missing, no sound, cut or damaged; its text is the reason alone."""


def read_blocks(path: Path | str) -> Iterator[tuple[int, Float32[np.ndarray, "n C"]]]:
    """Read a sound file a block at a time, as far as it is whole.

    Args:
        path: any format that soundfile reads.

    Yields:
        Samples a second, and the samples of up to `BLOCK` moments, full scale 1; never none.

    Raises:
        SoundFileError: before the first block, or after the last that could be read.
    """
    path = Path(path)
    if not path.is_file():
        raise SoundFileError("no such file")
    frames = 0
    try:
        with soundfile.SoundFile(path) as file:
            rate, announced = file.samplerate, file.frames
            if not RATES[0] <= rate <= RATES[1]:
                raise SoundFileError(f"its header claims {rate} samples a second")
            if file.format == "WAV":
                _refuse_cut_wav(path)
            elif file.format == "OGG":
                _refuse_damaged_ogg(path)
            bits, md5 = _vouched_for(path) if file.format == "FLAC" else (0, b"")
            digest = hashlib.md5(usedforsecurity=False)
            dtype = "int32" if md5 else "float32"
            # not SoundFile.blocks: behind the end of a cut file it yields uninitialised memory
            while len(block := file.read(BLOCK, dtype=dtype, always_2d=True)):
                frames += len(block)
                if md5:
                    digest.update(_packed(block >> (32 - bits), -(-bits // 8)))
                    block = block.astype(np.float32) / np.float32(1 << 31)  # exact to 24 bits
                yield rate, block
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise SoundFileError(getattr(error, "error_string", str(error))) from None
    if frames < announced:
        raise SoundFileError(f"cut off: {frames} of {announced} samples can be read")
    if not frames:
        raise SoundFileError("no samples")
    if md5 and digest.digest() != md5:
        raise SoundFileError("damaged: its samples are not those that its MD5 vouches for")


def _vouched_for(path: Path) -> tuple[int, bytes]:
    """Bits of a sample and the MD5 of all, from the first block of a Flac file (RFC 9639).

    No MD5 where the file names none, or does not begin as Flac files do.
    """
    with path.open("rb") as file:
        head = file.read(42)
    if head[:4] != b"fLaC" or head[26:] == bytes(16):
        return 0, b""
    return (int.from_bytes(head[18:26], "big") >> 36 & 31) + 1, head[26:]


def _packed(samples: Int32[np.ndarray, "n C"], width: int) -> bytes:
    """Samples as bytes, the lowest first, as many for each as its bits need."""
    return samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()


def _refuse_cut_wav(path: Path) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        at = 12  # behind "RIFF", its length, "WAVE"
        while at + 8 <= size:
            file.seek(at)
            head = file.read(8)
            length = int.from_bytes(head[4:], "little")
            at += 8
            if head[:4] == b"data":
                if length not in STREAMED and at + length > size:
                    raise SoundFileError(
                        f"cut off: {size - at} of {length} bytes of sound are there"
                    )
                return
            at += length + length % 2


def _refuse_damaged_ogg(path: Path) -> None:
    """Pages have a checksum, are numbered from 0, and the last of a stream says so.

    Source: RFC 3533. The checksum is the CRC of zlib with the bits of every byte, and of the
    result, in the other order, and without its two inversions.
    """
    content, at, following, ended = path.read_bytes(), 0, {}, set()
    while at < len(content):
        head = content[at : at + 27]
        if len(head) < 27 or head[:4] != b"OggS":
            raise SoundFileError(f"damaged: no page of Ogg at byte {at}")
        lengths = content[at + 27 : at + 27 + head[26]]
        end = at + 27 + head[26] + sum(lengths)
        if end > len(content):
            raise SoundFileError("cut off within a page of Ogg")
        page = head[:22] + bytes(4) + content[at + 26 : end]
        found = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        if int(f"{found:032b}"[::-1], 2) != int.from_bytes(head[22:26], "little"):
            raise SoundFileError(f"damaged: wrong checksum of the page of Ogg at byte {at}")
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if number != following.get(stream, 0):
            raise SoundFileError(f"damaged: page {following.get(stream, 0)} of Ogg is missing")
        following[stream] = number + 1
        if head[5] & 4:
            ended.add(stream)
        at = end
    if ended != following.keys():
        raise SoundFileError("cut off: the last page of Ogg is missing")
