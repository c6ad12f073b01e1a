"""Corpora: which clips exist, and where."""

from importlib import import_module
from pathlib import Path

from acl_lib.datasets.audio_folder import AudioFolder
from acl_lib.datasets.base import Corpus, cache_dir, data_dir
from acl_lib.datasets.clips import Clip, CorpusNotFoundError
from acl_lib.datasets.esc import ESC10, ESC50
from acl_lib.datasets.fsdnoisy18k import FSDnoisy18k
from acl_lib.datasets.label_noise import with_label_noise
from acl_lib.datasets.speakers import FSDD, VoxCeleb1

CORPORA = {
    "esc10": ESC10,
    "esc50": ESC50,
    "fsdnoisy18k": FSDnoisy18k,
    "fsdd": FSDD,
    "voxceleb1": VoxCeleb1,
}
MADE = {  # on the spot; scipy.signal, which helps, takes half as long to import as torch
    "synthetic": ("synthetic", "SyntheticEvents"),
    "synthetic_speakers": ("synthetic_speakers", "SyntheticSpeakers"),
}


def open_corpus(
    name: str, /, *, root: Path | str | None = None, download: bool = False, **options
) -> Corpus:
    """Find a corpus on disk, or say exactly what to do to get it.

    Args:
        name: "synthetic" or "synthetic_speakers" (made on the spot), "esc10", "esc50",
            "fsdnoisy18k", "fsdd", "voxceleb1", or "folder:PATH" (your own sounds, a folder or a
            CSV, see :class:`AudioFolder`); "folder" with ``root`` is the same.
        root: folder of the corpus; by default the folder ``name`` in :func:`data_dir`.
        download: fetch what is missing first.
        options: handed to the corpus, see its ``open``.

    Raises:
        CorpusNotFoundError: if it is not there; the message says what to do.
        ValueError: if the name is unknown, "folder" comes without a path or with two, or the corpus
            has to be asked for where a download is wanted.
    """
    if name in MADE:
        return __getattr__(MADE[name][1]).open(root, **options)
    kind, _, path = name.partition(":")
    if kind == "folder":
        if bool(path) == (root is not None):
            raise ValueError(f"your own sounds: 'folder:PATH', or 'folder' and root=; got {name!r}")
        return AudioFolder.open(path or root, **options)
    if name not in CORPORA:
        raise ValueError(f"no corpus {name!r}; there are {[*MADE, *CORPORA, 'folder:PATH']}")
    root = Path(root) if root is not None else data_dir() / name
    if download:
        if not hasattr(CORPORA[name], "download"):
            raise ValueError(
                f"{name} has to be asked for where it is published; place it at {root}"
            )
        CORPORA[name].download(root)
    return CORPORA[name].open(root, **options)


def __getattr__(name: str) -> object:
    for module, made in MADE.values():
        if name == made:
            return getattr(import_module(f"acl_lib.datasets.{module}"), made)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ESC10",
    "ESC50",
    "FSDD",
    "AudioFolder",
    "Clip",
    "Corpus",
    "CorpusNotFoundError",
    "FSDnoisy18k",
    "SyntheticEvents",
    "SyntheticSpeakers",
    "VoxCeleb1",
    "cache_dir",
    "data_dir",
    "open_corpus",
    "with_label_noise",
]
