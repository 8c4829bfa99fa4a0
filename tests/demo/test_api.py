"""The API: adapt once, predict many, each visitor alone, and a sentence for every wrong request."""

import base64
import json
import threading
from collections.abc import Callable

import numpy as np
import pytest

from kshot.demo.learners import PictureLearner
from kshot.demo.limits import ApiError, Limits, RateLimiter
from kshot.demo.sessions import Sessions
from tests.demo.conftest import class_set, draw, text_of

KINDS = ("circle", "cross", "bar")


def adapt(client, **more) -> dict:
    answer = client.post("/api/adapt", json={"classes": class_set(*KINDS), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def predict(client, session: str, *kinds: str, shift: int = -4) -> list[dict]:
    pictures = [text_of(draw(kind, shift)) for kind in kinds]
    answer = client.post("/api/predict", json={"session": session, "pictures": pictures})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


@pytest.mark.parametrize("learner", ["protonet", "maml"])
def test_adapt_once_and_predict_many(connect: Callable, learner: str):
    client = connect()
    adapted = adapt(client, learner=learner)
    assert adapted["learner"] == learner and adapted["classes"] == list(KINDS)
    assert len(adapted["map"]["support"]) == 6 and len(adapted["map"]["prototypes"]) == 3
    answers = predict(client, adapted["session"], *KINDS)
    assert [answer["class"] for answer in answers] == list(KINDS)
    for answer in answers:
        shares = [one["probability"] for one in answer["probabilities"]]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
        assert set(answer["map"]) == {"x", "y"}


@pytest.mark.parametrize("learner", ["protonet", "maml"])
def test_what_is_said_of_one_picture_never_depends_on_the_others(connect: Callable, learner: str):
    client = connect()
    session = adapt(client, learner=learner)["session"]
    together = predict(client, session, *KINDS)
    alone = [predict(client, session, kind)[0] for kind in KINDS]
    assert together == alone


def test_a_rehearsal_leaves_no_trace(protonet: PictureLearner, connect: Callable):
    client = connect()
    session = adapt(client)["session"]
    before = predict(client, session, *KINDS)
    protonet.rehearse()
    assert predict(client, session, *KINDS) == before


def test_one_visitor_never_sees_the_classes_of_another(connect: Callable):
    client = connect()
    sets = [("circle", "cross"), ("bar", "cross"), ("circle", "bar", "cross")]
    found: dict[int, list[set[str]]] = {}

    def visit(number: int) -> None:
        kinds = sets[number % len(sets)]
        classes = class_set(*kinds, shots=1)
        for one in classes:
            one["name"] = f"{one['name']} of {number}"
        session = client.post("/api/adapt", json={"classes": classes}).json()["session"]
        found[number] = [
            {one["class"] for one in predict(client, session, "bar")[0]["probabilities"]}
            for _ in range(3)
        ]

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        own = {f"{kind} of {number}" for kind in sets[number % len(sets)]}
        assert found[number] == [own] * 3


def refusal(answer, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    sentence = answer.json()["error"]
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


ONE = text_of(draw("circle"))


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ({}, 422, "'classes' in the request, and it is missing"),
        ({"classes": None}, 422, "a list in 'classes', and it is null"),
        ({"classes": class_set("circle")}, 422, "2 to 20 items in 'classes', and there are 1"),
        (
            {"classes": [{"name": str(n), "pictures": [ONE]} for n in range(1000)]},
            422,
            "2 to 20 items in 'classes', and there are 1000",
        ),
        ({"classes": [1, 2]}, 422, "class 1 as"),
        ({"classes": [{"name": "a"}, {"name": "b"}]}, 422, "'pictures' in class 1"),
        ({"classes": [{"name": "a", "pictures": []}] * 2}, 422, "1 to 20 items"),
        ({"classes": [{"name": "a", "pictures": [ONE]}] * 2}, 422, "two are 'a'"),
        ({"classes": [{"name": " ", "pictures": [ONE]}] * 2}, 422, "it is empty"),
        ({"classes": [{"name": "a" * 61, "pictures": [ONE]}] * 2}, 422, "at most 60 characters"),
        ({"classes": [{"name": "a", "pictures": [5]}] * 2}, 422, "and it is a number"),
        ({"classes": [{"name": "a", "pictures": ["?"]}] * 2}, 422, "not base64"),
        ({"classes": [{"name": "a", "pictures": ["AAAA"]}] * 2}, 422, "none of these"),
        (
            {"classes": [{"name": "a", "pictures": [text_of(draw("nothing"))]}] * 2},
            422,
            "picture 1 of class 'a' is blank",
        ),
        (
            {"classes": [{"name": "a", "pictures": [text_of(draw("bar", side=4097))]}] * 2},
            422,
            "at most 4096 pixels, and it is 4097 x 4097",
        ),
        (
            {"classes": [{"name": "a", "pictures": [text_of(bytes(2_100_000))]}] * 2},
            413,
            "at most 2 MB, and it has 2.1 MB",
        ),
        ({"classes": class_set("circle", "bar"), "learner": "none"}, 422, "protonet, maml"),
        ({"classes": class_set("circle", "bar"), "clases": 1}, 422, "'clases' came"),
    ],
)
def test_a_wrong_class_set_is_refused(connect: Callable, content, status: int, reason: str):
    client = connect()
    assert reason in refusal(client.post("/api/adapt", json=content), status)
    assert client.get("/api/learners").status_code == 200, "the server stays up"


def test_more_classes_than_a_learner_has_columns(connect: Callable):
    client = connect()
    most = next(
        one["most_classes"]
        for one in client.get("/api/learners").json()["learners"]
        if one["name"] == "maml"
    )
    classes = [{"name": str(n), "pictures": [ONE]} for n in range(most + 1)]
    answer = client.post("/api/adapt", json={"classes": classes, "learner": "maml"})
    assert f"at most {most} classes" in refusal(answer, 422)


def test_bodies_that_are_no_json(connect: Callable):
    client = connect(body_bytes=2_000_000)
    headers = {"Content-Type": "application/json"}

    def post(body: bytes, headers: dict[str, str] = headers):
        return client.post("/api/adapt", content=body, headers=headers)

    assert "cannot be read" in refusal(post(b"{"), 400)
    assert "a list" in refusal(post(b"[]"), 400)
    assert "NaN is not a number" in refusal(post(b'{"classes": NaN}'), 400)
    assert "cannot be read" in refusal(post(b"\xff\xfe"), 400)
    assert "cannot be read" in refusal(post(b"[" * 100_000), 400)
    assert "application/json" in refusal(post(b"{}", {"Content-Type": "text/plain"}), 415)
    large = json.dumps({"classes": "a" * 10_000_000}).encode()
    assert "at most 2 MB in a request" in refusal(post(large), 413)


def test_sessions_that_are_not_known(connect: Callable):
    client = connect()
    body = {"session": "unknown", "pictures": [ONE]}
    assert "adapt again" in refusal(client.post("/api/predict", json=body), 404)
    assert "'session'" in refusal(client.post("/api/predict", json={"pictures": [ONE]}), 422)
    session = adapt(client)["session"]
    many = {"session": session, "pictures": [ONE] * 17}
    assert "1 to 16 items" in refusal(client.post("/api/predict", json=many), 422)


def test_paths_and_methods_that_are_not_there(connect: Callable):
    client = connect()
    assert "/api/adapt" in refusal(client.get("/api/nothing"), 404)
    assert "another method" in refusal(client.get("/api/adapt"), 405)
    assert refusal(client.get("/static/../learners.py"), 404)


def test_too_many_requests_have_to_wait(connect: Callable):
    client = connect(rate=0.5, burst=3)
    statuses = [client.get("/api/learners").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    answer = client.get("/api/learners")
    assert "wait a second" in refusal(answer, 429) and answer.headers["retry-after"] == "1"


def test_the_page_asks_nobody_else(connect: Callable):
    client = connect()
    page = client.get("/")
    assert (
        page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    )
    for name in ("draw.html", "waves.html", "style.css", "draw.js", "waves.js", "pad.js", "map.js"):
        text = client.get(f"/static/{name}").text
        assert "https://" not in text and "style=" not in text
        assert text.replace("http://www.w3.org/2000/svg", "").count("http://") == 0


def test_the_description_names_what_there_is(connect: Callable):
    described = connect().get("/api/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    assert set(described["paths"]) == {
        *("/api/openapi.json", "/api/learners", "/api/adapt", "/api/predict"),
    }
    learner = described["paths"]["/api/adapt"]["post"]["requestBody"]["content"][
        "application/json"
    ]["schema"]["properties"]["learner"]
    assert learner == {"enum": ["protonet", "maml"]}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_sessions_are_few_and_forgotten_after_a_while(protonet: PictureLearner):
    pictures = np.zeros((2, 1, 28, 28), dtype=np.uint8)
    pictures[1, 0, 5:20, 10] = 255
    adapted = protonet.adapt(pictures, [0, 1], ["a", "b"])
    assert 0 < adapted.num_bytes < 10_000
    clock = Clock()
    sessions = Sessions(Limits(sessions=3, session_seconds=10.0), clock)
    names = [sessions.add(adapted) for _ in range(3)]
    sessions.get(names[0])  # used last
    sessions.add(adapted)
    assert len(sessions) == 3
    with pytest.raises(ApiError, match="adapt again"):
        sessions.get(names[1])
    assert sessions.get(names[0]) is adapted
    clock.now = 11
    with pytest.raises(ApiError):
        sessions.get(names[0])
    assert len(sessions) == 0
    small = Sessions(Limits(session_bytes=int(1.5 * adapted.num_bytes)), clock)
    first, second = small.add(adapted), small.add(adapted)
    assert small.get(second) is adapted and len(small) == 1
    with pytest.raises(ApiError):
        small.get(first)


def test_a_bucket_fills_again_and_buckets_are_few():
    clock = Clock()
    rate = RateLimiter(2.0, 2, most=2, clock=clock)
    rate.take("a")
    rate.take("a")
    with pytest.raises(ApiError):
        rate.take("a")
    clock.now = 0.5
    rate.take("a")
    for address in ("b", "c", "d"):
        rate.take(address)
    assert len(rate._buckets) == 2


def test_pictures_are_read_with_and_without_their_kind(connect: Callable):
    client = connect()
    session = adapt(client)["session"]
    plain = base64.b64encode(draw("cross", -4)).decode()
    bodies = [
        {"session": session, "pictures": [start + plain]}
        for start in ("", "data:image/png;base64,")
    ]
    first, second = (client.post("/api/predict", json=body).json() for body in bodies)
    assert first["predictions"] == second["predictions"]
