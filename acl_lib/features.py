"""Sound file -> waveform -> log-mel, and the memory-mapped store of a corpus's log-mels."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from filelock import FileLock
from jaxtyping import Float, Int
from torch import Tensor
from torchaudio.transforms import MelSpectrogram
from tqdm.auto import tqdm

from .datasets.sound_files import SoundFileError, read_blocks

LAYOUT = 2  # of the files of a store; another number makes all stores anew
PIECE = 6000  # frames transformed at a time, 50 MB of spectrum: an hour at once would fill 3 GB
SAVE_BYTES = 1 << 23  # of frames between two savings of a store in the making; 7 minutes of sound
_BUILDING = threading.Lock()  # torch's number of threads, which building sets, is the process's


class UnreadableAudioError(ValueError):
    """A file that is missing, damaged, empty, or holds NaN or infinite samples."""


class StoreError(OSError):
    """A store that could not be written, or that was damaged since."""


def load_waveform(
    path: str | os.PathLike, *, sample_rate: int = 22_050, resampler: str = "soxr_hq"
) -> Float[Tensor, " L"]:
    """Read a sound file as one channel at one rate, centred and with its peak just below 1.

    Channels are averaged; the level is normalised over the whole clip, `x / (max |x| + 0.005)`,
    so that near-silence is not blown up to full scale.

    Source: the front end of Fonseca et al. 2021, which the ACL paper follows.

    Args:
        path: any format that soundfile reads (wav, flac, ogg, mp3).
        sample_rate: of the result, in Hz.
        resampler: band-limited, by librosa's name: "soxr_hq", "soxr_vhq" and so on, or
            "kaiser_best", the authors', from resampy.

    Returns:
        float32 samples, zero mean, |x| < 1; 1 where the file's are above 1e5 of full scale.

    Raises:
        UnreadableAudioError: missing, damaged, cut or empty file; NaN or infinite samples.
    """
    rate, pieces = sample_rate, []
    try:
        for rate, block in read_blocks(path):  # noqa: B007 (the rate is used below)
            pieces.append(block.mean(axis=1))
    except SoundFileError as error:
        raise UnreadableAudioError(f"{path}: {error}; replace the file or leave it out") from None
    wav = np.concatenate(pieces)
    pieces.clear()  # two hours are 600 MB
    if np.isfinite(wav).all():
        wav = _resample(wav, rate, sample_rate, resampler)
    if not len(wav):  # of two samples at 96 kHz none is left
        raise UnreadableAudioError(f"{path}: no samples; replace the file or leave it out")
    wav = torch.from_numpy(wav)
    wav -= wav.mean()
    wav /= wav.abs().max() + 0.005
    if not wav.isfinite().all():  # also where a sum of absurdly large samples overflowed
        raise UnreadableAudioError(f"{path}: NaN or infinite samples; replace it or leave it out")
    return wav


def _resample(
    wav: Float[np.ndarray, " L"], rate: int, new_rate: int, resampler: str
) -> Float[np.ndarray, " M"]:
    if resampler == "kaiser_best":
        return _kaiser_best(wav, Fraction(new_rate, rate).limit_denominator(10_000))
    quality = resampler.removeprefix("soxr_").upper()
    return soxr.resample(wav, rate, new_rate, quality=quality)


def _kaiser_best(wav: Float[np.ndarray, " L"], ratio: Fraction) -> Float[np.ndarray, " M"]:
    """Low-pass by a Kaiser-windowed sinc of 64 zero crossings a side, at the ratio of two rates.

    Source: Smith's digital audio resampling with the "kaiser_best" filter of resampy 0.2.2, which
    librosa 0.7.2 calls; from 44.1 to 22.05 kHz the samples are the same to single precision.
    Deviations: going down by no power of two, resampy rounds its step through a table of the
    filter, which is exact here; and rates with hardly a common factor are taken to the nearest
    fraction, at most 0.01 % off, because their filter would fill the memory.
    """
    from scipy import signal  # slow to import

    up, down = ratio.as_integer_ratio()
    finest = max(up, down)
    x = np.linspace(-64, 64, 128 * finest + 1)  # in samples of the lower rate
    rolloff = 0.9475937167399596  # the cut-off, in half the lower rate
    low_pass = rolloff * np.sinc(rolloff * x) * signal.windows.kaiser(len(x), 14.769656459379492)
    low_pass /= finest  # a constant stays as it is
    return signal.resample_poly(wav, up, down, window=low_pass.astype(wav.dtype))


class LogMel:
    """Log-mel spectrogram, log10 power, Slaney's mel scale, triangles of height one.

    Source: reference front end of the ACL code: Hamming window, reflected edges, power spectrum,
    log10(mel + floor). librosa gives the same numbers on the same waveform to 1e-5.

    Args:
        floor: power, > 0; with the default digital silence is -7.96.
        min_seconds: a shorter clip is repeated to this length, > 0; the reflected edges need more
            than n_fft / 2 samples in any case.

    >>> LogMel()(torch.zeros(22_050)).shape       # one second
    torch.Size([96, 101])
    """

    def __init__(
        self,
        *,
        sample_rate: int = 22_050,
        n_fft: int = 2048,
        win_length: int = 660,
        hop_length: int = 220,
        n_mels: int = 96,
        fmin: float = 50.0,
        fmax: float = 10_500.0,
        resampler: str = "soxr_hq",
        floor: float = 1.1e-8,
        min_seconds: float = 1.0,
    ) -> None:
        self.settings = {k: v for k, v in locals().items() if k != "self"}
        self.sample_rate, self.resampler, self.floor = sample_rate, resampler, floor
        self.min_samples = max(round(min_seconds * sample_rate), n_fft // 2 + 1)
        self._mel = MelSpectrogram(
            sample_rate,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            f_min=fmin,
            f_max=fmax,
            n_mels=n_mels,
            window_fn=torch.hamming_window,
            mel_scale="slaney",
            center=False,
        )

    def __call__(self, wav: Float[Tensor, " L"]) -> Float[Tensor, "F T"]:
        """T = 1 + L // hop_length frames, of at least `min_seconds`."""
        wav = repeat_to(wav, self.min_samples)
        n_fft, hop = self.settings["n_fft"], self.settings["hop_length"]
        wav = F.pad(wav[None], (n_fft // 2, n_fft // 2), mode="reflect")[0]
        mels = []
        for first in range(0, 1 + (len(wav) - n_fft) // hop, PIECE):
            piece = wav[first * hop :][: (PIECE - 1) * hop + n_fft]
            mels.append((self._mel(piece) + self.floor).log10_())
        return mels[0] if len(mels) == 1 else torch.cat(mels, dim=1)

    def read(self, path: str | os.PathLike) -> Float[Tensor, "F T"]:
        """The log-mel of a sound file."""
        wav = load_waveform(path, sample_rate=self.sample_rate, resampler=self.resampler)
        return self(wav)


def repeat_to(wav: Float[Tensor, " L"], samples: int) -> Float[Tensor, " M"]:
    """A short clip played over and over until it has `samples`; a longer one unchanged."""
    return wav if len(wav) >= samples else wav.repeat(-(-samples // len(wav)))[:samples]


@dataclass(frozen=True)
class LogMelStore:
    """All log-mels of a corpus, back to back.

    Clip n is `frames[starts[n] : starts[n] + lengths[n]]`. Time runs along the rows, so that a
    patch is one contiguous read. Built once, then memory-mapped: patches of a store larger than the
    memory are read from the disk as they are asked for. `to("cuda")` moves all of it to a GPU that
    has room for it (42 hours are about 3 GB in float16).
    """

    frames: Float[Tensor, "T_total F"]  # log10 power, float16
    starts: Int[Tensor, " N"]
    lengths: Int[Tensor, " N"]  # frames
    sums: Float[Tensor, "N 2 F"]  # sum and sum of squares over each clip's frames, float64

    @property
    def device(self) -> torch.device:
        """Where to work with the store; its frames may have stayed behind, see `to`."""
        return self.starts.device

    def to(self, device: str | torch.device) -> LogMelStore:
        """The same store with its tensors on a device.

        Frames that would take more than half of a GPU's free memory stay where they are, and
        `views.gather_patches` sends over what is asked for.
        """
        names = {field.name for field in dataclasses.fields(self)}
        if not _has_room(torch.device(device), self.frames.nbytes):
            names -= {"frames"}
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in names})

    def take(self, clips: Int[Tensor, " n"]) -> LogMelStore:
        """Some clips in the order given, also more than once; their frames are not copied."""
        clips = clips.to(self.starts.device)
        return dataclasses.replace(
            self, starts=self.starts[clips], lengths=self.lengths[clips], sums=self.sums[clips]
        )

    def mel_statistics(self, clips: Int[Tensor, " n"] | None = None) -> tuple[float, float]:
        """Mean and standard deviation over all values of some clips, in log10 power.

        The authors' code divides the summed squares by N outside the root, which makes its
        "standard deviation" sqrt(N) times too small; this is the usual one.
        """
        mean, square = self._moments(clips).mean(1).tolist()
        return mean, max(square - mean**2, 0.0) ** 0.5

    def band_statistics(
        self, clips: Int[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
        """Mean and standard deviation of every mel band over the frames of some clips.

        Source: the authors' supervised system. Deviation: theirs counts a frame once for each
        overlapping patch that holds it, this once.

        Returns:
            float32, on the device of the store. The deviation of a band that never varies is 1,
            not 0: it divides.
        """
        mean, square = self._moments(clips)
        std = (square - mean**2).clamp(min=0).sqrt()
        still = std <= 1e-6 * square.sqrt()  # less is rounding
        return mean.float().to(self.device), std.where(~still, 1.0).float().to(self.device)

    def _moments(self, clips: Int[Tensor, " n"] | None) -> Float[Tensor, "2 F"]:
        """Mean and mean square of every band, float64, on the CPU."""
        clips = torch.arange(len(self.starts)) if clips is None else clips.cpu()
        return self.sums.cpu()[clips].sum(0) / self.lengths.cpu()[clips].sum()

    @classmethod
    def build(
        cls,
        corpus,
        mel: LogMel,
        cache_dir: str | os.PathLike,
        *,
        skip_unreadable: bool = False,
        workers: int | None = None,
        progress: bool = True,
    ) -> LogMelStore:
        """Open the store of a corpus, making it first where it does not exist yet.

        The store's folder is named by a hash of the corpus (paths, sizes, times) and the mel
        settings, and appears under that name only when it is complete. What is made before that
        is kept in `<name>.part`, so that a build which was killed or found the disk full goes on
        where it stopped, to the same bytes; who asks for a store that is being made waits for it.
        Unreadable files do not stop the work: the good ones are stored, then the bad ones are all
        named at once.

        Args:
            corpus: anything with `name` and `clips`, each with a `path`.
            cache_dir: where stores are kept; must be writable.
            skip_unreadable: store an unreadable clip as `min_seconds` of silence, not an error.
            workers: threads that decode and transform; all cores when None.
            progress: draw a progress bar while making it.

        Raises:
            ValueError: the corpus has no clips.
            UnreadableAudioError: names every unreadable file, unless `skip_unreadable`.
            StoreError: the disk is full or not writable; what was made by then is kept. Or a
                store was damaged after it was made. Or files changed meanwhile.
        """
        folder = Path(cache_dir) / "logmel" / _name(corpus, mel)
        if not corpus.clips:
            raise ValueError(f"{corpus.name} has no clips to make log-mels of")
        with _BUILDING:
            if not (folder / "index.json").exists():
                _write_store(corpus, mel, folder, workers, progress)
        bands = mel.settings["n_mels"]
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            lengths, unreadable = torch.tensor(index["lengths"]), index["unreadable"]
            shape = (int(lengths.sum()), bands)
            frames = np.memmap(folder / "frames.f16", dtype=np.float16, mode="c", shape=shape)
            sums = np.fromfile(folder / "sums.f64").reshape(len(corpus.clips), 2, bands)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StoreError(f"{folder}: {error}; delete it, and it is made again") from error
        if unreadable and not skip_unreadable:
            raise UnreadableAudioError(
                f"{len(unreadable)} of {len(corpus.clips)} files cannot be read:\n  "
                + "\n  ".join(unreadable)
                + "\nRepair them, or take them in as silence with skip_unreadable=True."
            )
        return cls(
            frames=torch.from_numpy(frames),  # mode "c": torch wants it writable, the file is not
            starts=lengths.cumsum(0) - lengths,
            lengths=lengths,
            sums=torch.from_numpy(sums),
        )


def _name(corpus, mel: LogMel) -> str:
    def stamp(path: Path) -> list:
        try:
            stat = path.stat()
            return [str(path), stat.st_size, stat.st_mtime_ns]
        except OSError:
            return [str(path), None, None]

    what = [LAYOUT, mel.settings, [stamp(Path(clip.path)) for clip in corpus.clips]]
    return f"{corpus.name}-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}"


def _has_room(device: torch.device, size: int) -> bool:
    """Whether so many bytes leave at least half of a GPU's free memory to the network."""
    return device.type != "cuda" or 2 * size <= torch.cuda.mem_get_info(device)[0]


def _write_store(corpus, mel: LogMel, folder: Path, workers: int | None, progress: bool) -> None:
    """Decode in parallel, append in order; `write` reports a full disk, a memory map would not."""
    silence, bands = mel(torch.zeros(1)), mel.settings["n_mels"]

    def read(clip) -> tuple[np.ndarray, np.ndarray, str | None]:
        try:
            values, problem = mel.read(clip.path), None
        except UnreadableAudioError as error:
            values, problem = silence, str(error)
        values = values.T.half()
        wide = values.double()
        sums = torch.stack([wide.sum(0), wide.square().sum(0)])
        return values.contiguous().numpy(), sums.numpy(), problem

    workers, total = workers or os.cpu_count() or 1, len(corpus.clips)
    locks, made = folder.parents[1] / "locks", None
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{folder.name}.lock"):  # whoever else makes this store is waited for
            if (folder / "index.json").exists():
                return
            made = _Unfinished(folder.with_name(f"{folder.name}.part"), bands)
            there = len(made.lengths)
            with _one_thread_each(workers) as pool:
                clips = _in_turn(pool, read, corpus.clips[there:], ahead=4 * workers)
                bar = {"initial": there, "total": total, "unit": "clip", "disable": not progress}
                for clip in tqdm(clips, f"log-mel of {corpus.name}", **bar):
                    made.append(*clip)
            if folder.name != _name(corpus, mel):
                shutil.rmtree(made.folder)  # it would go on saying that a file is not there
                raise StoreError(
                    f"sounds of {corpus.name} vanished or changed while their log-mels were made: "
                    "leave them alone and run it again"
                )
            made.finish(folder, mel.settings)
    except StoreError:
        raise
    except OSError as error:
        kept = ""
        if made and made.lengths:
            size = 2 * bands * sum(made.lengths) / len(made.lengths) * total / 1e6
            kept = f" It needs about {size:.1f} MB; {len(made.lengths)} of {total} clips are kept."
        raise StoreError(
            f"cannot write the log-mel store in {folder.parent}: {error}.{kept} Free some space "
            "and run it again, or set ACL_CACHE to another folder."
        ) from error


class _Unfinished:
    """A store in the making: the clips that were saved outlive the process that made them.

    A line of `clips.jsonl` vouches for the frames and sums of a clip, which are on the disk before
    it is written. Whatever lies beyond the last line is cut off when the folder is opened again.
    """

    def __init__(self, folder: Path, bands: int) -> None:
        self.folder = folder
        self.lengths: list[int] = []  # of the clips saved
        self.unreadable: list[str] = []
        self._clips: list[tuple] = []  # not saved yet
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("frames.f16", "sums.f64", "clips.jsonl"):
            (folder / name).touch()
        vouched = 0  # bytes of whole lines
        with open(folder / "clips.jsonl", "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._note(*json.loads(line))
                vouched += len(line)
        ends = {
            "frames.f16": 2 * bands * sum(self.lengths),
            "sums.f64": 16 * bands * len(self.lengths),
            "clips.jsonl": vouched,
        }
        if any((folder / name).stat().st_size < end for name, end in ends.items()):
            self.lengths, self.unreadable = [], []  # somebody made room by hand
            ends = dict.fromkeys(ends, 0)
        for name, end in ends.items():
            os.truncate(folder / name, end)

    def append(
        self, frames: Float[np.ndarray, "T F"], sums: Float[np.ndarray, "2 F"], problem: str | None
    ) -> None:
        """Take the next clip, and save what has gathered when it is worth it."""
        self._clips.append((frames, sums, problem))
        if sum(frames.nbytes for frames, _, _ in self._clips) >= SAVE_BYTES:
            self._save()

    def finish(self, folder: Path, settings: dict) -> None:
        """Give the store its name: it is complete."""
        self._save()
        index = {"mel": settings, "lengths": self.lengths, "unreadable": self.unreadable}
        self._write("index.json", "wb", [json.dumps(index).encode()])
        os.replace(self.folder, folder)
        (folder / "clips.jsonl").unlink()

    def _note(self, length: int, problem: str | None) -> None:
        self.lengths.append(length)
        self.unreadable += [problem] if problem else []

    def _save(self) -> None:
        lines = [json.dumps([len(frames), problem]) + "\n" for frames, _, problem in self._clips]
        self._write("frames.f16", "ab", [frames for frames, _, _ in self._clips])
        self._write("sums.f64", "ab", [sums for _, sums, _ in self._clips])
        self._write("clips.jsonl", "ab", [line.encode() for line in lines])  # the last: it vouches
        for frames, _, problem in self._clips:
            self._note(len(frames), problem)
        self._clips = []

    def _write(self, name: str, mode: str, parts: list) -> None:
        """Returns when the parts are on the disk, whatever happens to the machine then."""
        with open(self.folder / name, mode) as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())


def _in_turn(pool: ThreadPoolExecutor, work: Callable, items: Iterable, *, ahead: int) -> Iterator:
    """Results in the order of the items, of which only so many are in work or waiting at a time."""
    pending = deque()
    for item in items:
        if len(pending) == ahead:
            yield pending.popleft().result()
        pending.append(pool.submit(work, item))
    while pending:
        yield pending.popleft().result()


@contextlib.contextmanager
def _one_thread_each(workers: int):
    """A thread pool in which torch uses one thread per worker: more would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)
