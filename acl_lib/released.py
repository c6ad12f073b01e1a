"""The authors' released features of the 947 test clips of FSDnoisy18k: fetched, checked, read.

    features = load_released_features()
    features["t0.2a0.3"].h

Each of twenty folders `tTAU` (NT-Xent) or `tTAUaALPHA` (ACL) holds what one encoder makes of two
patches of every clip, drawn and augmented as in training: h, and z of a projection head.
"""

from __future__ import annotations

import errno
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from .datasets import CorpusNotFoundError, data_dir
from .datasets.download import fetch, matches

REPOSITORY = "shanwangshan/uniformity_tolerance"
COMMIT = "8a68b5de6c9909731b08f901732da0392d8b2f37"
TREE = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}"
CLIPS_OF_FILE = (128,) * 7 + (51,)  # of tensors0.pt to tensors7.pt: 947 in all
WIDTH = 512  # of h and of z
CLASSES = (
    *("Acoustic_guitar", "Bass_guitar", "Clapping", "Coin_(dropping)", "Crash_cymbal"),
    *("Dishes_and_pots_and_pans", "Engine", "Fart", "Fire", "Fireworks", "Glass", "Hi-hat"),
    *("Piano", "Rain", "Slam", "Squeak", "Tearing", "Walk_or_footsteps", "Wind", "Writing"),
)
# the files count classes in the order of the strings "0", "1", "10", "11" ... "19", "2" ... "9"
CLASS_OF_LABEL = tuple(int(number) for number in sorted(map(str, range(len(CLASSES)))))
REMEDY = "`acl published --download` fetches the authors' files (150 MB; --root says where to)"


@dataclass(frozen=True, eq=False)
class ReleasedFeatures:
    """What one of the authors' encoders makes of the test clips.

    Attributes:
        name: of the folder.
        temperature, alpha: of the loss it was trained with; alpha is 1.0 for plain NT-Xent.
        h: output of the encoder for both views, >= 0; row n of both is clip n, in every folder.
        z: output of the projection head, of norm 1.
        y: class of each clip, an index into `classes`, which are in alphabetical order.
        stored: "float32", or "float16" for copies in half precision.
        original: whether all eight files are the published ones, byte for byte.
    """

    name: str
    temperature: float
    alpha: float
    h: Float[Tensor, "2 N d"]
    z: Float[Tensor, "2 N d"]
    y: Int[Tensor, " N"]
    stored: str
    original: bool
    classes: tuple[str, ...] = CLASSES


def released_checksums() -> dict[str, str]:
    """Path below the folder of the features -> git blob id of each of the 160 published files."""
    text = files("acl_lib.datasets") / "checksums" / "acl_published_features.txt"
    lines = (line.split() for line in text.read_text(encoding="utf-8").splitlines())
    return {path: blob for blob, _, path in lines}


def released_folders() -> list[str]:
    """Names of the twenty folders, by temperature, NT-Xent before ACL."""
    names = {path.partition("/")[0] for path in released_checksums()}
    return sorted(names, key=lambda name: (_settings(name)[0], "a" in name))


def released_dir() -> Path:
    """Absolute folder in which they are looked for: `acl_published_features` in ACL_DATA."""
    return data_dir() / "acl_published_features"


def download_released_features(root: Path | str | None = None, *, progress: bool = True) -> None:
    """Fetch the files that are missing or not the published ones, each checked by its blob id.

    What came is kept, whatever happens; the next call goes on from there.

    Args:
        root: folder to hold the twenty folders, 150 MB in all; None: `released_dir`. Copies in
            float16 that lie there are replaced by the originals.

    Raises:
        PermissionError: the folder cannot be written to.
        ConnectionError: the line broke too often.
        OSError: the server refuses.
        ValueError: another file than the published one came; it is deleted.
    """
    root = released_dir() if root is None else Path(root).absolute()

    def one(item: tuple[str, str]) -> None:
        path, blob = item
        fetch(f"{TREE}/{path}", root / path, checksum=f"git:{blob}", progress=False)

    published = released_checksums()
    try:
        with ThreadPoolExecutor(8) as pool:
            jobs = pool.map(one, published.items())
            for _ in tqdm(jobs, "features", len(published), unit=" files", disable=not progress):
                pass
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise PermissionError(
            f"cannot write to {root}: give a folder that you may write to (--root)"
        ) from error


def load_released_features(root: Path | str | None = None) -> dict[str, ReleasedFeatures]:
    """Read every folder of the authors' features that is there; nothing in them is run.

    Args:
        root: folder that holds folders such as t0.2 and t0.2a0.3; None: `released_dir`.

    Returns:
        Name of the folder -> its features in float32, in the order of `released_folders`.

    Raises:
        CorpusNotFoundError: none of the twenty folders is there, or files of one are missing.
        ValueError: a file that is damaged, or holds anything but such features.
    """
    root = released_dir() if root is None else Path(root).absolute()
    published, names = released_checksums(), released_folders()
    found = [name for name in names if (root / name).is_dir()]
    if not found:
        raise CorpusNotFoundError(
            f"none of the authors' {len(names)} folders ({names[0]} to {names[-1]}) is in {root}: "
            f"{REMEDY}; or set ACL_DATA to the folder that holds acl_published_features"
        )
    missing = [p for p in published if p.partition("/")[0] in found and not (root / p).is_file()]
    if missing:
        more = f" and {len(missing) - 8} more" if missing[8:] else ""
        raise CorpusNotFoundError(
            f"{', '.join(missing[:8])}{more} not found in {root}: a folder needs tensors0.pt to "
            f"tensors{len(CLIPS_OF_FILE) - 1}.pt. {REMEDY}; or remove the folder"
        )
    return {name: _load(root / name, published) for name in found}


def _load(folder: Path, published: dict[str, str]) -> ReleasedFeatures:
    paths = [folder / f"tensors{k}.pt" for k in range(len(CLIPS_OF_FILE))]
    batches = [_read(path, clips) for path, clips in zip(paths, CLIPS_OF_FILE, strict=True)]
    h, z = (torch.cat([batch[key] for batch in batches], dim=1) for key in "hz")
    halves = any(batch[key].dtype == torch.float16 for batch in batches for key in "hz")
    labels = torch.cat([batch["labels"] for batch in batches])
    temperature, alpha = _settings(folder.name)
    return ReleasedFeatures(
        name=folder.name,
        temperature=temperature,
        alpha=alpha,
        h=h.float(),
        z=z.float(),
        y=torch.tensor(CLASS_OF_LABEL)[labels],
        stored="float16" if halves else "float32",
        original=all(matches(p, f"git:{published[f'{folder.name}/{p.name}']}") for p in paths),
    )


def _read(path: Path, clips: int) -> dict[str, Tensor]:
    """h and z (2, clips, 512) and labels (clips,) of one file, in the precision it has."""

    def refuse(what: str) -> ValueError:
        return ValueError(f"{path} {what}. {REMEDY}; or remove the folder")

    try:
        with zipfile.ZipFile(path) as archive:  # torch.load looks at no checksum
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        batch = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:  # its text would advise to unpickle everything
        raise refuse("holds more than tensors and numbers; none of it was run") from None
    except Exception as error:  # damage makes the readers stumble in many ways
        reason = str(error).partition("\n")[0]
        raise refuse(f"is damaged, or no file of torch ({reason})") from None
    if not isinstance(batch, dict) or not {"h", "z", "labels"} <= batch.keys():
        got = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise refuse(f"must hold h, z and labels; got {got}")
    read = {"labels": batch["labels"]}
    for key in "hz":
        views = batch[key] if isinstance(batch[key], (list, tuple)) else [batch[key]]
        got = [_kind(view) for view in views]
        allowed = [[(clips, WIDTH, dtype)] * 2 for dtype in ("float32", "float16")]
        if got not in allowed:
            raise refuse(
                f"must hold two views {key} of {clips} by {WIDTH} numbers in float32 or float16; "
                f"got {got}"
            )
        read[key] = torch.stack([view.detach() for view in views])
        if not read[key].isfinite().all():
            raise refuse(f"holds numbers in {key} that are not finite")
    if (got := _kind(read["labels"])) != (clips, "int64"):
        raise refuse(f"must hold {clips} labels in int64; got {got}")
    lowest, highest = read["labels"].min(), read["labels"].max()
    if lowest < 0 or highest >= len(CLASSES):
        raise refuse(f"must hold labels from 0 to {len(CLASSES) - 1}; got {lowest} to {highest}")
    return read


def _kind(thing: object) -> tuple | str:
    """Shape and precision of a tensor, or what else it is."""
    if not isinstance(thing, Tensor):
        return type(thing).__name__
    return (*thing.shape, str(thing.dtype).removeprefix("torch."))


def _settings(name: str) -> tuple[float, float]:
    """Temperature and alpha from the name of a folder."""
    temperature, alpha = re.fullmatch(r"t([\d.]+)(?:a([\d.]+))?", name).groups()
    return float(temperature), float(alpha or 1)
