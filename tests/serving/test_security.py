"""API keys, the rate limit, and the port."""

import socket
import time
from pathlib import Path

import pytest

from serving import keys
from serving.errors import Problem
from serving.security import Keys, RateLimit
from serving.server import _listen


def test_keys_are_added_used_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.security.CHECK_SECONDS", 0)
    file = tmp_path / "keys"
    keys.main([str(file), "alice"])
    keys.main([str(file), "root", "--admin"])
    alice, root = capsys.readouterr().out.split()
    assert alice not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    valid = Keys(file)
    assert valid.authenticate(f"Bearer {alice}").name == "alice"
    assert not valid.authenticate(f"bearer {alice}").admin
    assert valid.authenticate(f"Bearer {root}").admin
    time.sleep(0.01)
    keys.main([str(file), "alice", "--revoke"])
    with pytest.raises(Problem) as refused:
        valid.authenticate(f"Bearer {alice}")
    assert refused.value.status == 401
    assert valid.authenticate(f"Bearer {root}").name == "root"
    with pytest.raises(SystemExit) as exit:
        keys.main([str(file), "root"])
    assert exit.value.code == 2


def test_rate_limit_counts_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("serving.security.time.monotonic", lambda: now[0])
    limit = RateLimit(2.0)
    for _ in range(2):
        limit.check("a")
    with pytest.raises(Problem) as refused:
        limit.check("a")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    limit.check("b")
    now[0] += 0.5
    limit.check("a")
    with pytest.raises(Problem):
        limit.check("a")


def test_answers_are_sent_at_once() -> None:
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # otherwise asyncio does not set TCP_NODELAY
