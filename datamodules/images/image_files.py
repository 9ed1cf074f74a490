"""Image files in folders, zip archives and glob patterns, and unlabeled images to predict."""

import glob
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as F

from engine.errors import UserError
from preprocessing.image_arrays import convert_image
from preprocessing.images import prepare_image
from preprocessing.special_tokens import IGNORE_INDEX

MEMORY = 2 * 2**30  # bytes of decoded images that are kept in memory by default


def is_hidden(part: str) -> bool:
    """Return whether a file or folder was left there by an operating system."""
    return part.startswith(".") or part in ("__MACOSX", "Thumbs.db")


def is_image(name: str) -> bool:
    """Return whether a file name has one of torchvision's image extensions."""
    return name.lower().endswith(IMG_EXTENSIONS)


def list_files(root: Path) -> list[str]:
    """Return all files but hidden ones in a folder or zip file, sorted, relative to it."""
    if root.is_dir():
        names, visited = [], {os.path.realpath(root)}
        for folder, subfolders, files in os.walk(root, followlinks=True):
            names += [Path(folder, name).relative_to(root).as_posix() for name in files]
            real = {name: os.path.realpath(Path(folder, name)) for name in subfolders}
            subfolders[:] = [name for name in subfolders if real[name] not in visited]
            visited.update(real.values())  # a link may lead back to a parent
    else:
        entries = open_archive(root, os.getpid()).infolist()
        names = [entry.filename for entry in entries if not entry.is_dir()]
    return sorted(name for name in names if not any(map(is_hidden, Path(name).parts)))


def read_file(root: Path, file: str) -> bytes:
    """Return the bytes of a file in a folder or zip file."""
    if root.is_dir():
        return (root / file).read_bytes()
    return open_archive(root, os.getpid()).read(file)


@lru_cache(maxsize=8)
def open_archive(path: Path, process: int) -> zipfile.ZipFile:
    """Open a zip file, once per process: processes must not share a file position."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path} is neither a folder nor a complete zip file ({error}): download or copy it "
            "again."
        ) from error


def decode(root: Path, file: str, prepare: Callable[[Image.Image], Tensor]) -> Tensor | str:
    """Decode one image, or return why it is unreadable."""
    try:
        with Image.open(BytesIO(read_file(root, file))) as image:
            return prepare(image)
    except Exception as error:  # decoders raise any type on damaged files
        return unreadable(error)


def unreadable(error: Exception) -> str:
    """Describe why an image cannot be read."""
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"too large, more than {limit:,} pixels"
    return f"broken, {error}" if type(error) is ValueError else "broken"


def resize_shorter_side(image: Image.Image, shorter_side: int) -> Tensor:
    """Convert to RGB and resize, (3, height, width) uint8."""
    rgb = F.pil_to_tensor(convert_image(image))
    return F.resize(rgb, [shorter_side], antialias=True)


def map_files(function: Callable[[str], Any], files: Sequence[str]) -> dict[str, Any]:
    """Apply a function to all files in threads; decoders release Python's lock."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    Image.init()  # load the format plugins once, before threads do
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(files, pool.map(function, files), strict=True))


def warn_skipped(root: Path | str, reasons: Iterable[str]) -> None:
    """Warn about skipped files, each given as `name (reason)`."""
    if skipped := list(reasons):
        rank_zero_warn(
            f"{root}: {len(skipped)} file{'s' if len(skipped) > 1 else ''} skipped: "
            f"{', '.join(skipped[:20])}{', …' if len(skipped) > 20 else ''}"
        )


class PredictionImages(Dataset[tuple[Tensor, Tensor]]):
    """Images to predict; an item is the batch of the given rows, with unknown targets.

    Unreadable files are skipped with a warning when the data set is created.

    Args:
        pattern: An image file, a folder, a zip file, or a glob pattern.
        preprocessing: See `preprocessing.images.images_to_inputs`.
        class_names: A file in a folder of one of these names has this true class.
    """

    def __init__(
        self, pattern: str, preprocessing: dict[str, Any], class_names: Sequence[str]
    ) -> None:
        self.preprocessing = preprocessing
        path = Path(pattern).expanduser()
        if path.is_dir() or path.suffix.lower() == ".zip":
            self.root, names = path, list_files(path) if path.exists() else []
        else:
            matches = [str(path)] if path.is_file() else glob.glob(str(path), recursive=True)
            self.root, names = Path(), sorted(filter(os.path.isfile, matches))
        images = list(filter(is_image, names))
        if not images:
            raise UserError(
                f"No image matches --data.predict {pattern!r} (looked for from {Path.cwd()}): give "
                f"an image, a folder, a zip file or a pattern such as 'images/*.jpg'. Extensions: "
                f"{', '.join(IMG_EXTENSIONS)}"
            )
        size = preprocessing["in_channels"] * preprocessing["image_size"] ** 2
        keep = len(images) * size <= MEMORY  # else decode once to find unreadable files, then again
        found = map_files(lambda file: self._decode(file) if keep else self._check(file), images)
        reasons = [f"{file} ({why})" for file, why in found.items() if isinstance(why, str)]
        warn_skipped(pattern, [f"{n} (not an image)" for n in names if not is_image(n)] + reasons)
        self.files = [file for file in images if not isinstance(found[file], str)]
        if not self.files:
            raise UserError(f"--data.predict {pattern}: no image is readable: {reasons[0]}.")
        self.images = [found[file] for file in self.files] if keep else None
        parents = [Path(file).parent.name for file in self.files]
        self.classes = [name if name in class_names else None for name in parents]

    def _decode(self, file: str) -> Tensor | str:
        return decode(self.root, file, lambda image: prepare_image(image, self.preprocessing))

    def _check(self, file: str) -> str | None:
        found = self._decode(file)
        return found if isinstance(found, str) else None

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Columns of `predictions.csv`: the paths and, where known, the true classes."""
        columns: dict[str, list[Any]] = {"path": [str(self.root / file) for file in self.files]}
        return columns | ({"true_class": self.classes} if any(self.classes) else {})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        size = self.preprocessing["image_size"]
        images: list[Any] = [
            self._decode(self.files[row]) if self.images is None else self.images[row]
            for row in rows.tolist()
        ]
        none = torch.empty(0, self.preprocessing["in_channels"], size, size, dtype=torch.uint8)
        targets = torch.full((len(rows),), IGNORE_INDEX)
        return torch.stack(images) if images else none, targets
