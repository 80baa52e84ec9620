"""The places for uploads, which clients share."""

from contextlib import ExitStack

import pytest
from starlette.requests import Request

from rooftrace.core.errors import BusyError
from rooftrace.rest.transfer import UploadLimiter


def request(client: str | None) -> Request:
    return Request({"type": "http", "client": client and (client, 1), "headers": []})


def places(stack: ExitStack, limiter: UploadLimiter, client: str | None, most: int = 100) -> int:
    """Return how many places the client gets, which it keeps."""
    for count in range(most):
        try:
            stack.enter_context(limiter.place(request(client)))
        except BusyError:
            return count
    return most


def test_a_single_place_is_for_one_request() -> None:
    limiter = UploadLimiter(1)
    with limiter.place(request("a")), pytest.raises(BusyError, match="1 of at most 1") as refused:
        limiter.place(request("a")).__enter__()
    assert refused.value.retry_after_s > 0
    with limiter.place(request("a")):
        pass


def test_a_client_that_keeps_all_places_it_gets_leaves_some_to_others() -> None:
    limiter = UploadLimiter(32)
    with ExitStack() as held:
        assert places(held, limiter, "10.0.0.1") == 17
        assert places(held, limiter, "10.0.0.2") == 8
        with ExitStack() as quick:
            assert places(quick, limiter, "10.0.0.3") == 4
        # It reconnects: its place is not free before it ends.
        assert places(held, limiter, "10.0.0.1") == 0
        assert places(held, limiter, "10.0.0.4", most=1) == 1


def test_refused_clients_do_not_come_back_together() -> None:
    limiter, found = UploadLimiter(1), set()
    limiter._seconds = 40.0
    with limiter.place(request("a")):
        for number in range(20):
            with pytest.raises(BusyError) as refused:
                limiter.place(request(f"b{number}")).__enter__()
            found.add(refused.value.retry_after_s)
    assert len(found) == 20
    assert 7.5 <= min(found) < max(found) <= 12.5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("10.0.0.1", "10.0.0.2", False),
        (None, None, True),
    ],
)
def test_a_client_is_an_address_or_a_network(
    one: str | None, other: str | None, same: bool
) -> None:
    limiter = UploadLimiter(8)
    with ExitStack() as held:
        assert places(held, limiter, one) == 5
        assert (places(held, limiter, other, most=1) == 0) == same
