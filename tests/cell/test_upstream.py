"""What a lost connection says about the request that was sent on it."""

import socket

import pytest

from mlfleet.cell.upstream import ATOMIC_BYTES, LostError, connect


async def lost(request: bytes, *, read: int, close_first: bool = False) -> LostError:
    """Send a request to a peer that reads some of it and closes."""
    ours, theirs = socket.socketpair()
    upstream = await connect(ours)
    if close_first:
        # The event loop has not seen it when the request is sent.
        theirs.close()
    upstream.start(request, is_head=False)
    if not close_first:
        if read:
            theirs.setblocking(True)
            theirs.recv(read)
        theirs.close()
    with pytest.raises(LostError) as raised:
        await upstream.head()
    return raised.value


async def test_a_request_to_a_peer_that_closed_was_unread() -> None:
    assert (await lost(b"x" * 100, read=0, close_first=True)).was_unread


async def test_a_request_that_nobody_read_was_unread() -> None:
    assert (await lost(b"x" * 100, read=0)).was_unread


async def test_a_request_that_was_read_may_have_been_begun() -> None:
    assert not (await lost(b"x" * 100, read=100)).was_unread


async def test_a_long_request_may_have_been_begun_however_it_ended() -> None:
    request = b"x" * (ATOMIC_BYTES + 1)
    assert not (await lost(request, read=0)).was_unread
    assert not (await lost(request, read=0, close_first=True)).was_unread
