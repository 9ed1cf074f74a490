"""Source code of Python's standard library: about 1.8 million characters, on every machine."""

import sysconfig
from pathlib import Path
from typing import Any

from datamodules.language_modeling.packed_texts import PackedFiles
from datamodules.language_modeling.text_file import TextFile
from engine.errors import UserError

# Single-file modules in plain ASCII that every Python since 3.11 has.
MODULES = (
    "argparse ast base64 bdb bisect cmd code codecs configparser contextlib copy csv dataclasses "
    "difflib dis enum fileinput gettext graphlib gzip inspect ipaddress locale operator os pickle "
    "platform pprint queue random sched selectors shelve shutil socket socketserver subprocess "
    "tempfile textwrap threading timeit tokenize trace traceback typing uuid weakref"
)


def standard_library() -> list[Path]:
    """Return the files of the modules, in alphabetical order.

    Raises:
        UserError: If this Python installation has no source code.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = [file for name in MODULES.split() if (file := folder / f"{name}.py").is_file()]
    if not found:
        raise UserError(
            f"This Python has no source code of its standard library in {folder}. Train on your "
            "own text files: --data TextFile --data.files \"['texts/*.txt']\"."
        )
    return found


class PythonSource(TextFile):
    """Source code of the standard library. The text differs between versions of Python.

    Takes the arguments of TextFile except `files`.
    """

    def __init__(self, **text_file: Any) -> None:
        super().__init__(files=[], **text_file)

    def find(self) -> list[Path]:
        return standard_library()


class PackedSource(PackedFiles):
    """The same source code in rows of equal length, for a masked language model.

    Takes the arguments of PackedFiles except `files`.
    """

    def __init__(self, **packed: Any) -> None:
        super().__init__(files=[], **packed)

    def find(self) -> list[Path]:
        return standard_library()
