"""The whole surface of the package `aetcd`. Run: with_aetcd.py ONEFOLD DATA_DIR"""

import asyncio
import hashlib
import io
import sys

import aetcd
from aetcd import rpc

import cluster as harness


def connect(cluster, index=0, **options):
    return aetcd.Client(**cluster.address(index), timeout=harness.PATIENCE, **options)


async def refused(awaitable, text="", kind=aetcd.ClientError):
    """Whether a call fails with this kind of exception, whose text has `text`."""
    try:
        await awaitable
    except kind as error:
        assert text in str(error), f"{text!r} is not in {error!r}"
        return True
    return False


async def take(watch, count):
    events = []
    async for event in watch:
        events.append(event)
        if len(events) == count:
            return events
    raise AssertionError(f"the watch ended after {events}")


async def test_keys(cluster):
    async with connect(cluster) as client:
        await client.delete_prefix(b"key/")
        first = (await client.put(b"key/a", b"1")).header.revision
        assert (await client.put(b"key/a", b"2", prev_kv=True)).prev_kv.value == b"1"
        found = await client.get(b"key/a")
        assert (found.value, found.version, found.create_revision) == (b"2", 2, first)
        assert await client.get(b"key/none") is None
        await client.get(b"key/a", serializable=True)
        assert await client.replace(b"key/a", b"2", b"3")
        assert not await client.replace(b"key/a", b"2", b"4")
        await client.put(b"key/b", b"1")
        await client.put(b"key/c", b"0")
        found = await client.get_prefix(b"key/", sort_order="ascend", sort_target="value")
        assert [kv.key for kv in found] == [b"key/c", b"key/b", b"key/a"]
        assert [kv.value for kv in await client.get_prefix(b"key/", keys_only=True)] == [b""] * 3
        found = await client.get_range(b"key/a", b"key/c")
        assert (len(found), found.more, found.count) == (2, False, 2)
        assert (await client.get_all(keys_only=True)).count >= 3
        assert (await client.delete(b"key/a", prev_kv=True)).prev_kv.value == b"3"
        assert await client.delete(b"key/a") is None
        assert (await client.delete_range(b"key/a", b"key/c", prev_kv=True)).prev_kvs[0].value == b"1"
        assert (await client.delete_prefix(b"key/")).deleted == 1
        assert await refused(client.put(b"key/large", b"x" * 1_600_000), "too large")


async def test_transactions(cluster):
    async with connect(cluster) as client:
        await client.put(b"txn/a", b"1")
        tx = client.transactions
        ok, answers = await client.transaction(
            [tx.value(b"txn/a") == b"1", tx.version(b"txn/a") > 0, tx.create(b"txn/none") == 0,
             tx.mod(b"txn/a") != 0],
            success=[tx.put(b"txn/a", b"2"), tx.get(b"txn/a"), tx.delete(b"txn/none"),
                     tx.txn([tx.version(b"txn/a") > 0], [tx.put(b"txn/c", b"nested")], [])],
            failure=[])
        assert ok and answers[1][0][0] == b"2" and answers[3].response_txn.succeeded
        ok, answers = await client.transaction([tx.value(b"txn/a") == b"1"], [],
                                               [tx.get(b"txn/a")])
        assert not ok and answers[0][0][0] == b"2"


async def test_watches(cluster):
    async with connect(cluster) as client:
        first = (await client.put(b"watch/a", b"1")).header.revision
        await client.put(b"watch/b", b"2")
        await client.delete(b"watch/a")
        watch = await client.watch_prefix(b"watch/", start_revision=first, prev_kv=True)
        events = await take(watch, 3)
        assert [event.kind for event in events] == ["PUT", "PUT", "DELETE"]
        assert events[2].prev_kv.value == b"1"
        await watch.cancel()
        for kind, count in [(aetcd.EventKind.PUT, 2), (aetcd.EventKind.DELETE, 1)]:
            watch = await client.watch_prefix(b"watch/", start_revision=first, kind=kind)
            assert {event.kind for event in await take(watch, count)} == {kind.value}
            await watch.cancel()
        live = await client.watch(b"watch/live", progress_notify=True, fragment=True)
        await client.put(b"watch/live", b"x")
        assert (await take(live, 1))[0].kv.value == b"x"
        await live.cancel()
        once = asyncio.create_task(client.watch_once(b"watch/once", start_revision=first))
        await client.put(b"watch/once", b"1")
        assert (await once).kv.value == b"1"
        never = client.watch_once(b"watch/never", timeout=1)
        assert await refused(never, kind=aetcd.WatchTimeoutError)
        await client.compact(first + 1)
        await client.get(b"watch/a")
        watch = await client.watch(b"watch/a", start_revision=first)
        assert await refused(take(watch, 1), kind=aetcd.RevisionCompactedError)


async def test_leases(cluster):
    async with connect(cluster) as client:
        lease = await client.lease(300)
        await client.put(b"lease/a", b"1", lease=lease)
        assert await lease.granted_ttl() == 300 and 0 < await lease.remaining_ttl() <= 300
        assert list(await lease.keys()) == [b"lease/a"]
        assert (await lease.refresh()).TTL == 300
        await lease.revoke()
        assert await client.get(b"lease/a") is None
        assert await refused(lease.revoke(), "lease not found")
        wished = await client.lease(300, lease_id=77_002)
        again = client.lease(300, lease_id=77_002)
        assert await refused(again, kind=aetcd.DuplicateLeaseError)
        await wished.revoke()


async def test_locks(cluster):
    async with connect(cluster, 0) as first, connect(cluster, 1) as second:
        async with first.lock(b"lock", ttl=30) as held:
            assert await held.is_acquired()
            await held.refresh()
            assert not await second.lock(b"lock", ttl=30).acquire(timeout=1)
            waiting = second.lock(b"lock", ttl=30)
            task = asyncio.create_task(waiting.acquire(timeout=None))
        assert await task and await waiting.is_acquired()
        assert await waiting.release()


async def test_members_and_maintenance(cluster):
    async with connect(cluster) as client:
        members = [member async for member in client.members()]
        assert len(members) == 3 and all(member.client_urls for member in members)
        status = await client.status()
        assert status.version and status.db_size > 0
        assert status.leader.id in [member.id for member in members]
        assert await client.hash() != 0
        await client.defragment()
        assert [alarm async for alarm in client.list_alarms()] == []
        assert await client.disarm_alarm() == []
        assert await refused(client.remove_member(4711), "member not found")
        assert await refused(client.update_member(4711, ["http://127.0.0.1:1"]), "member not found")
        file = io.BytesIO()
        await client.snapshot(file)
        saved = file.getvalue()
        assert hashlib.sha256(saved[:-32]).digest() == saved[-32:]


async def test_users(cluster):
    async with connect(cluster) as client:
        auth = rpc.AuthStub(client.channel)
        await auth.UserAdd(rpc.AuthUserAddRequest(name="root", password="root's"))
        await auth.RoleAdd(rpc.AuthRoleAddRequest(name="root"))
        await auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        await auth.AuthEnable(rpc.AuthEnableRequest())
        try:
            assert await refused(client.put(b"user/a", b"1"), "user name is empty")
            wrong = connect(cluster, username="root", password="wrong")
            assert await refused(wrong.connect(), "authentication failed")
            async with connect(cluster, 1, username="root", password="root's") as root:
                await root.put(b"user/a", b"1")
                watch = await root.watch(b"user/a", start_revision=1)
                await watch.cancel()
        finally:
            async with connect(cluster, 2, username="root", password="root's") as root:
                disable = rpc.AuthDisableRequest()
                await rpc.AuthStub(root.channel).AuthDisable(disable, metadata=root.metadata)
            await auth.UserDelete(rpc.AuthUserDeleteRequest(name="root"))
            await auth.RoleDelete(rpc.AuthRoleDeleteRequest(role="root"))


async def test_failover(cluster):
    """The library knows one address: its user goes on at the next one when a node is killed."""
    current = 0
    client = connect(cluster, current)
    for number in range(60):
        if number == 20:
            cluster.act("kill", current)
            killed = current
        while await refused(client.put(f"failover-aetcd/{number:04}".encode(), b"1")):
            await client.close()
            current = (current + 1) % len(cluster.nodes)
            client = connect(cluster, current)
    assert current != killed
    assert (await client.get_prefix(b"failover-aetcd/")).count == 60
    await client.close()
    cluster.act("start", killed)


if __name__ == "__main__":
    harness.run(sys.modules[__name__])
