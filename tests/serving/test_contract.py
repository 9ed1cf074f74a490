"""Generated requests against the OpenAPI document of a real server process."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import KEYS, ServerProcess

# For each of the operations, of which there are 18; CASES=556 sends 10,000.
CASES = int(os.environ.get("CASES", "18"))
HEADERS = {"Authorization": f"Bearer {KEYS['client']}", "Prefer": "wait=10"}


@pytest.mark.slow
def test_generated_requests_keep_the_contract(
    server: ServerProcess, sources: dict[str, Path]
) -> None:
    assert check_contract(server, sources, "/") > 150


@pytest.mark.slow
def test_generated_questions_keep_the_contract(answering: ServerProcess) -> None:
    assert check_contract(answering, ["documents"], "/v1/answer") >= CASES


def check_contract(server: ServerProcess, sources: Iterable[str], prefix: str) -> int:
    """Send generated requests to the paths with a prefix, and return their number."""
    # Imported here, since these libraries take seconds and the default suite does not need them.
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    all_checks = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    schema = schema.include(path_regex=f"^{prefix}")
    names = itertools.cycle(sources)
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=CASES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            nonlocal count
            count += 1
            if "name" in (case.path_parameters or {}):
                case.path_parameters["name"] = next(names)
            case.validate_response(case.call(headers=HEADERS), checks=all_checks)

        check()
    return count
