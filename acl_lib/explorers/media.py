"""Sounds and pictures of clips beside the book's pages, made again from the corpus at each build.

They stay out of the project: a corpus has its own licence, and the synthetic one is made from a
seed. The record of a map, book/results/explorers/map_NAME.json, says which clips.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib import colormaps
from PIL import Image

from ..datasets import Clip, Corpus, CorpusNotFoundError, open_corpus
from ..features import LogMel, load_waveform
from ..listen import mp3
from ..whole import write_whole

SAMPLE_RATE, SECONDS = 22_050, 5
PIXELS = 50  # of width for a second, so that a short sound looks short
DECADES = 6  # below the loudest; what is fainter is black

_beside = Path(__file__).resolve().parents[2] / "book"
# an installed library lies elsewhere; notebooks are executed in their folder
BOOK = _beside if _beside.exists() else Path("../book").resolve()


def record_path(kind: str, corpus: str) -> Path:
    """Where an explorer's record lies: kind is "map" or "training"."""
    return BOOK / "results" / "explorers" / f"{kind}_{corpus}.json"


def best_corpus() -> str:
    """Real recordings where they and a map of them are there: "esc10", else "synthetic"."""
    try:
        if record_path("map", "esc10").exists() and open_corpus("esc10"):
            return "esc10"
    except CorpusNotFoundError:
        pass
    return "synthetic"


def open_mapped(name: str) -> tuple[Corpus, dict]:
    """A corpus and the record of its map.

    Raises:
        FileNotFoundError: there is no such record.
        ValueError: the record is of other sounds than those that are there.
    """
    path = record_path("map", name)
    again = f"make it with `acl explorers build --corpus {name}`"
    if not path.exists():
        raise FileNotFoundError(f"no map of {name!r} at {path}: {again}")
    record = json.loads(path.read_text(encoding="utf-8"))
    size = {"profile": record["profile"], "progress": False} if name == "synthetic" else {}
    corpus = open_corpus(name, **size)
    if corpus.fingerprint() != record["corpus"]["fingerprint"]:
        raise ValueError(
            f"the map of {name!r} was made of other sounds than those that are there "
            f"({record['corpus']['fingerprint']}, now {corpus.fingerprint()}): {again}"
        )
    return corpus, record


def media_folder(corpus: Corpus) -> str:
    """Name of the folder of a corpus's clips; another for other sounds."""
    return f"{corpus.name}-{corpus.fingerprint()[:8]}"


def clip_name(clip: Clip) -> str:
    """What a clip is called in a page and in an address."""
    return clip.path.stem


def sound(clip: Clip) -> bytes:
    """The first five seconds of a clip as MP3."""
    return mp3(load_waveform(clip.path)[: SECONDS * SAMPLE_RATE], SAMPLE_RATE)


def log_mel_picture(clip: Clip) -> bytes:
    """The log-mel of what `sound` plays as WebP: 50 pixels for a second, a pixel for a band."""
    wav = load_waveform(clip.path)[: SECONDS * SAMPLE_RATE]
    mel = LogMel()(wav)
    shade = ((mel - mel.max()) / DECADES + 1).clamp(0, 1).flip(0)  # low sounds at the bottom
    colour = torch.from_numpy(colormaps["magma"](shade.numpy(), bytes=True))[..., :3]
    width = max(1, round(len(wav) / SAMPLE_RATE * PIXELS))
    small = Image.fromarray(colour.numpy()).resize((width, mel.shape[0]), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "webp", quality=70, method=4)
    return file.getvalue()


def addresses(clip: Clip) -> dict[str, str]:
    """Sound and picture of a clip as addresses that hold them, for a page with a kernel."""
    return {
        "sound": f"data:audio/mpeg;base64,{base64.b64encode(sound(clip)).decode()}",
        "picture": f"data:image/webp;base64,{base64.b64encode(log_mel_picture(clip)).decode()}",
    }


def make_media(corpus: Corpus, clips: list[int], folder: Path) -> int:
    """Write NAME.mp3 and NAME.webp of each clip that lacks them.

    Args:
        clips: numbers of clips of the corpus.

    Returns:
        How many files were made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Clip], bytes]] = {".mp3": sound, ".webp": log_mel_picture}
    made = 0
    for clip in (corpus.clips[n] for n in clips):
        for ending, maker in makers.items():
            file = folder / (clip_name(clip) + ending)
            if not file.exists():
                write_whole(file, maker(clip))
                made += 1
    return made


def make_shown(vendor: Path) -> str:
    """The clips of the map that the book shows, below vendor/clips; those of another map go.

    Args:
        vendor: folder of what the build adds to the book's files.

    Returns:
        The corpus that is shown.

    Raises:
        FileNotFoundError, ValueError: as `open_mapped`.
    """
    shown = best_corpus()
    corpus, record = open_mapped(shown)
    folder = vendor / "clips" / media_folder(corpus)
    if folder.parent.exists():
        for other in folder.parent.iterdir():
            if other.name != folder.name:  # its licence may not be that of this build
                shutil.rmtree(other)
    make_media(corpus, record["clips"], folder)
    return shown


def credits(corpus: Corpus, clips: list[int]) -> list[str]:
    """Whose sound each clip is and under which licence, as far as the corpus tells.

    ESC-10 tells it in ATTRIBUTION.md or README.md.
    """
    files = (corpus.root / "ATTRIBUTION.md", corpus.root / "README.md")
    text = next((f.read_text(encoding="utf-8") for f in files if f.is_file()), "")
    line = r"^- \*\*\[(\S+?)\]\(\S*\)\*\*:\s+clip derived from \[(.+?)\]\((\S+)\) by \*(.+?)\*"
    told = {name: found for name, *found in re.findall(line, text, re.M)}
    words = []
    for clip in (corpus.clips[n] for n in clips):
        title, address, author = told.get(clip.path.name, ("", "", ""))
        number = re.search(r"/sounds/(\d+)", address)
        parts = [f"“{title}” by {author}" if author else ""]
        parts += [f"Freesound {number[1]}" if number else "", clip.licence]
        words.append(", ".join(part for part in parts if part))
    return words
