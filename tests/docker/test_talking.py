"""C clients in containers of their own, through the volume's socket and across networks that stand for hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.docker.engine import exchange

if TYPE_CHECKING:
    from tests.docker.engine import Site


async def test_two_c_clients_talk_through_the_socket_on_the_volume(site: Site) -> None:
    volume = await site.volume()
    await site.relay(volume, await site.network())
    watcher = await site.near(volume, "watch")
    a = await site.article_client(volume, "A", "B", "1")
    b = await site.article_client(volume, "B", "A", "2")
    await watcher.line("JOINED A")
    await watcher.line("JOINED B")
    assert await exchange(a, b) == ["B2", "A1"]


async def test_two_c_clients_on_different_networks_talk_by_tcp(site: Site) -> None:
    volume, here, there = await site.volume(), await site.network(), await site.network()
    relay = await site.relay(volume, here, there)
    watcher = await site.near(volume, "watch")
    a = await site.tcp_client(relay, here, "A", "B", "1")
    b = await site.tcp_client(relay, there, "B", "A", "2")
    await watcher.line("JOINED A")
    await watcher.line("JOINED B")
    assert await exchange(a, b) == ["B2", "A1"]


async def test_a_c_client_on_the_volume_talks_with_one_on_a_network(site: Site) -> None:
    volume, network = await site.volume(), await site.network()
    relay = await site.relay(volume, network)
    watcher = await site.near(volume, "watch")
    a = await site.article_client(volume, "A", "B", "1")
    b = await site.tcp_client(relay, network, "B", "A", "2")
    await watcher.line("JOINED A")
    await watcher.line("JOINED B")
    assert await exchange(a, b) == ["B2", "A1"]
