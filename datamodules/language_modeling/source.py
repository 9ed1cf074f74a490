"""Python's own source code: some 1.8 million characters that are on every machine already."""

import sysconfig
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.language_modeling.packed_texts import PackedFiles
from datamodules.language_modeling.text_file import TextFile

# Modules of one file each, in every Python from 3.11 on, in plain ASCII, and no tests among them.
MODULES = (
    "argparse ast base64 bdb bisect cmd code codecs configparser contextlib copy csv dataclasses "
    "difflib dis enum fileinput gettext graphlib gzip inspect ipaddress locale operator os pickle "
    "platform pprint queue random sched selectors shelve shutil socket socketserver subprocess "
    "tempfile textwrap threading timeit tokenize trace traceback typing uuid weakref"
)


def standard_library() -> list[Path]:
    """The files of the modules, in alphabetical order.

    Raises:
        MisconfigurationException: If this Python keeps no source code.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = [file for name in MODULES.split() if (file := folder / f"{name}.py").is_file()]
    if not found:
        raise MisconfigurationException(
            f"This Python keeps no source code of its standard library in {folder}. Train on "
            "text files of your own: --data TextFile --data.files \"['texts/*.txt']\"."
        )
    return found


class PythonSource(TextFile):
    """Modules of the standard library of the Python that runs, in alphabetical order.

    Takes the arguments of TextFile, less `files`. Another version of Python is another text.
    """

    def __init__(self, **text_file: Any) -> None:
        super().__init__(files=[], **text_file)

    def find(self) -> list[Path]:
        return standard_library()


class PackedSource(PackedFiles):
    """The same modules in rows of equal length, for a net that guesses hidden words.

    Takes the arguments of PackedFiles, less `files`.
    """

    def __init__(self, **packed: Any) -> None:
        super().__init__(files=[], **packed)

    def find(self) -> list[Path]:
        return standard_library()
