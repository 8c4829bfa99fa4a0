"""What the API's description allows and forbids, tried at random: never a 5xx.

Run by `make test-browser`.
"""

import pytest

pytestmark = pytest.mark.slow

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis (extra `dev`)")


@pytest.mark.filterwarnings("ignore")
def test_random_requests_never_break_the_server(connect):
    app = connect(body_bytes=2_000_000).app
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    tried = {"count": 0}
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()
        from hypothesis import HealthCheck, given, settings

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=strategy)
        def try_one(case) -> None:
            tried["count"] += 1
            answer = case.call()
            assert answer.status_code < 500, answer.text
            case.validate_response(answer)

        try_one()
    assert tried["count"] > 40
