"""`/v1/chat/completions/batch` on the running server, and the same conversations one by one."""

import httpx
from asking import CHAT, TEXT_ONLY, About

ROUTE = f"{CHAT}/batch"
GREEDY = {"temperature": 0, "max_tokens": 6}


def test_each_conversation_is_answered_as_it_is_alone(http: httpx.Client, about: About) -> None:
    conversations = [about("coffee", "What is it?"), TEXT_ONLY, about("cat", "Where is it?")]
    together = http.post(ROUTE, json={"messages": conversations, **GREEDY}).json()
    alone = [http.post(CHAT, json={"messages": messages, **GREEDY}).json() for messages in conversations]
    for choice, answer in zip(together["choices"], alone, strict=True):
        assert choice["message"] == answer["choices"][0]["message"]
        if "dualfocus" in answer:
            assert [choice["dualfocus"][name] for name in ("box", "winner")] == [
                answer["dualfocus"][name] for name in ("box", "winner")
            ]
    assert ["dualfocus" in choice for choice in together["choices"]] == [True, False, True]
    assert together["usage"]["total_tokens"] == sum(answer["usage"]["total_tokens"] for answer in alone)


def test_an_error_in_one_is_the_whole_batchs(http: httpx.Client, about: About) -> None:
    """And nothing of the others stays behind: they can be asked again."""
    body = {"messages": [about("coffee", "What?"), [{"role": "user", "content": "a " * 20_000}]], **GREEDY}
    answer = http.post(ROUTE, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    for mode in ("dual", "off"):
        again = {"messages": [about("coffee", "What?")] * 2, "dualfocus": {"mode": mode}, **GREEDY}
        assert http.post(ROUTE, json=again).status_code == 200


def test_sagemakers_route_answers_as_chat_does(http: httpx.Client, about: About) -> None:
    body = {"messages": about("coffee", "What is it?"), **GREEDY}
    passed, direct = [http.post(route, json=body).json() for route in ("/invocations", CHAT)]
    assert passed["choices"] == direct["choices"]
    assert passed["dualfocus"]["box"] == direct["dualfocus"]["box"]
    assert http.post("/invocations", json={"prompt": "a", "max_tokens": 1}).json()["object"] == "text_completion"
