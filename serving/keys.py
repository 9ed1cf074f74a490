"""Add or revoke an API key: `python -m serving.keys FILE NAME [--admin | --revoke]`.

The key is printed once; the file contains its hash only.
"""

import argparse
import re
import secrets
import sys
from pathlib import Path

from serving.errors import StartError
from serving.security import digest, read_keys


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Raises:
        SystemExit: With code 2 and one message on stderr after a user error.
    """
    parser = argparse.ArgumentParser("python -m serving.keys", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="created where it does not exist")
    parser.add_argument("name", metavar="NAME", help="who uses the key; it is in the logs")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--admin", action="store_true", help="the key may replace models")
    action.add_argument("--revoke", action="store_true", help="remove the key")
    options = parser.parse_args(args)
    try:
        key = change(options.file.expanduser(), options.name, options.admin, options.revoke)
    except (StartError, OSError) as error:
        sys.stderr.write(f"serving.keys: error: {error}.\n")
        sys.exit(2)
    print(key if key else f"revoked: {options.name}")


def change(file: Path, name: str, admin: bool, revoke: bool) -> str | None:
    """Add or remove a key; return a new key.

    Raises:
        StartError: If the file is not valid, or the name is taken or unknown.
    """
    if not re.fullmatch(r"\S+", name):
        raise StartError(f"the name {name!r} must not contain blanks")
    keys = read_keys(file) if file.exists() and file.read_text().strip() else []
    known = name in [key.name for key in keys]
    if known != revoke:
        raise StartError(f"{file} has {'a' if known else 'no'} key named {name}")
    if revoke:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith(f"{name} "))
        file.write_text(text, encoding="utf-8")
        return None
    key = secrets.token_urlsafe(32)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(f"{name} {digest(key)}{' admin' if admin else ''}\n")
    file.chmod(0o600)
    return key


if __name__ == "__main__":
    main()
