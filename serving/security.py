"""API keys, of which only hashes are stored, and a rate limit for each key."""

import hashlib
import hmac
import logging
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

from serving.errors import Problem, StartError

ANONYMOUS = "anonymous"
CHECK_SECONDS = 1.0  # how often the file of keys is checked for changes
MAX_BUCKETS = 10_000


@dataclass(frozen=True)
class Key:
    """The entry of a key in the file of keys."""

    name: str
    digest: str  # SHA-256 of the key, which is random, in hexadecimal
    admin: bool = False


def read_keys(path: Path) -> list[Key]:
    """Return the keys of a file: lines of a name, the SHA-256 of the key, and perhaps `admin`.

    Raises:
        StartError: If the file cannot be read or a line is not valid.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"--keys_file: cannot read {path}: {error}") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"(\S+) ([0-9a-f]{64})( admin)?", line.strip())
        if found is None:
            raise StartError(
                f"--keys_file: line {number} of {path} is not valid; expected a name, the SHA-256 "
                "of a key, and `admin` where it may replace models. Add keys by python -m "
                f"serving.keys {path} NAME"
            )
        keys.append(Key(found[1], found[2], found[3] is not None))
    if not keys:
        raise StartError(
            f"--keys_file: {path} contains no key; add one by python -m serving.keys {path} NAME"
        )
    return keys


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """The valid API keys. Changes of the file take effect within a second.

    Args:
        path: File of keys; without one every request is allowed.

    Raises:
        StartError: If the file is not valid.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._keys = [] if path is None else read_keys(path)
        self._modified = 0 if path is None else path.stat().st_mtime_ns
        self._checked = time.monotonic()

    def authenticate(self, authorization: str | None) -> Key:
        """Return the key of a request.

        Args:
            authorization: Header `Authorization: Bearer KEY`.

        Raises:
            Problem: 401.
        """
        if self.path is None:
            return Key(ANONYMOUS, "")
        self._reload(self.path)
        scheme, _, key = (authorization or "").partition(" ")
        given = digest(key.strip())
        # Compare with every key, in a time that does not depend on the given one.
        found = [one for one in self._keys if hmac.compare_digest(one.digest, given)]
        if scheme.lower() != "bearer" or not found:
            raise Problem(
                401, "A valid API key is required: Authorization: Bearer KEY.", "unauthorized"
            )
        return found[0]

    def _reload(self, path: Path) -> None:
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked = time.monotonic()
        try:
            modified = path.stat().st_mtime_ns
            if modified != self._modified:
                self._keys = read_keys(path)
                self._modified = modified
        except (OSError, StartError) as error:
            logging.getLogger("serving").error("the former API keys stay valid: %s", error)


class RateLimit:
    """A token bucket for each key, or without keys for each address.

    Args:
        rate: Requests per second, of which as many (at least one) may come at once.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}  # allowed requests, and when

    def check(self, name: str) -> None:
        """Count a request.

        Raises:
            Problem: 429.
        """
        if self.rate is None:
            return
        now = time.monotonic()
        burst = max(1.0, self.rate)
        allowed, then = self._buckets.pop(name, (burst, now))
        allowed = min(burst, allowed + (now - then) * self.rate)
        self._buckets[name] = (max(0.0, allowed - 1) if allowed >= 1 else allowed, now)
        if len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]  # the one unused for longest
        if allowed < 1:
            wait = math.ceil((1 - allowed) / self.rate)
            raise Problem(
                429, f"This key may send {self.rate:g} requests per second.", "rate", wait
            )
