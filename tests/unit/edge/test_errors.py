"""Refusals: one code, one status, an answer that ends the connection."""

from handoff_edge.errors import STATUS, UNANSWERED, Refusal, answer_bytes, http_answer


def test_every_code_has_a_status_of_its_own_kind() -> None:
    assert not UNANSWERED & STATUS.keys()
    assert all(400 <= status < 600 for status in STATUS.values())
    assert all(
        status in (502, 503, 504) for code, status in STATUS.items() if code.startswith("origin_")
    )


def test_an_answer_is_plain_text_with_its_code_and_closes() -> None:
    refusal = Refusal("too_many_new", "slow down", retry_after=1, headers=(("x-y", "z"),))
    head, _, body = answer_bytes(refusal).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 429 Too Many Requests"
    assert set(lines[1:]) == {
        b"connection: close",
        b"content-length: 10",
        b"content-type: text/plain; charset=utf-8",
        b"x-handoff-error: too_many_new",
        b"retry-after: 1",
        b"x-y: z",
    }
    assert body == b"slow down\n"


def test_an_applications_own_answer_keeps_its_content_type_and_any_status() -> None:
    answer = http_answer(299, [("content-type", "text/html")], b"x")
    assert answer.startswith(b"HTTP/1.1 299 \r\n")
    assert answer.count(b"content-type") == 1
    assert b"retry-after" not in answer_bytes(Refusal("no_rule", "no"))
