"""Generated requests against the OpenAPI document of a real server process."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.server import KEYS, ServerProcess

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
CASES = 18  # for each of the operations, of which there are 18
HEADERS = {"Authorization": f"Bearer {KEYS['client']}", "Prefer": "wait=10"}


@pytest.mark.slow
def test_generated_requests_keep_the_contract(
    server: ServerProcess, sources: dict[str, Path]
) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
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
            case.validate_response(case.call(headers=HEADERS), checks=CHECKS)

        check()
    assert count > 150
