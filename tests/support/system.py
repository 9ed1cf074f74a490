"""Ports, timeouts and privileges for tests."""

import os
import socket

import pytest

START_SECONDS = 240  # limit for the start of processes on a busy machine
needs_root = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="mounts and network namespaces need root"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
