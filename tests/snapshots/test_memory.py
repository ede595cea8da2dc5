"""The in-memory store keeps the contract of all stores, and can be broken by tests."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from matrix.snapshots._memory import MemoryStore
from matrix.snapshots.interfaces import StoreUnavailable
from matrix.testing.object_store_suite import TEXT, ObjectStoreContract, sha256


class MemoryContractTests(ObjectStoreContract, TestCase):
    """The contract."""

    def setUp(self) -> None:
        self.store = MemoryStore()

    async def test_uploads_that_were_not_ended_are_known(self) -> None:
        writing = await self.store.write(self.key(), 3)
        self.assertEqual(len(self.store.begun), 1)
        writing.abort()
        self.assertEqual(len(self.store.begun), 0)

    async def test_down(self) -> None:
        await self.put(TEXT)
        self.store.down = True
        for doing in (self.store.size(self.key()), self.get(), self.put(b"x"), self.names()):
            await self.assertFailure(Deferred.fromCoroutine(doing), StoreUnavailable)

    async def test_a_lost_answer(self) -> None:
        self.store.lose_answers = 1
        writing = await self.store.write(self.key(), len(TEXT), sha256(TEXT))
        await writing.write([TEXT])
        await self.assertFailure(writing.commit(), StoreUnavailable)
        self.assertEqual(await self.get(), TEXT)
