"""What the API's description allows and forbids, tried at random: never a 5xx, nothing untold.

Run by `make test-browser`.
"""

import pytest
from hypothesis import HealthCheck, given, settings

pytestmark = pytest.mark.slow

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis (extra `dev`)")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_random_requests_never_break_the_server(connect, mode: str):
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    # Not that all it allows is accepted: no schema says what a picture is.
    held = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    app = connect(body_bytes=2_000_000).app
    described = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    tried = []
    for result in described.get_all_operations():
        operation = result.ok()
        if mode == "NEGATIVE" and operation.method != "post":
            continue  # nothing can be wrong with what takes nothing
        cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode])

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=cases)
        def try_one(case) -> None:
            answer = case.call()
            tried.append(answer.status_code)
            case.validate_response(answer, checks=held)

        try_one()
    assert len(tried) > 40
