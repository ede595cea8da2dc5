"""A survey of the emulated Fly: what it shows, and what is deleted after it."""

from __future__ import annotations

from uuid import uuid4

from twisted.internet import reactor

from matrix.machines import ProviderError, Sighted, _fly
from matrix.machines._fly_survey import named_after
from matrix.model import Machine, MachineState, Stray, UserId
from matrix.testing.fly_machines import APP, FlyMachinesCase

S = MachineState


class SurveyTests(FlyMachinesCase):
    """What is found, in however many pages."""

    reactor = reactor

    async def made(self) -> Machine:
        """Somebody's machine, not started."""
        row = Machine(UserId(str(uuid4())), "fly", S.PROVISIONING, 1)

        async def keep(**fields: object) -> Machine:
            nonlocal row
            row = Machine(**{name: getattr(row, name) for name in Machine.__slots__} | fields)  # type: ignore[arg-type]
            return row

        await self.provider.provision(row, {"MATRIX_MACHINE_TOKEN": "x"}, keep)
        await self.eventually(lambda: self.record(row).visible_at < self.world.now())
        await self.eventually(lambda: self.record(row).state == "created")
        return row

    async def survey(self) -> dict[str, Sighted]:
        self.blind: set[str] = set()
        found: dict[str, Sighted] = {}
        self.pages = 0
        async for page in self.provider.survey():
            self.pages += 1
            self.blind |= set(page.blind)
            found |= {one.id: one for one in page.found}
        return found

    async def test_machines_and_volumes_in_pages(self) -> None:
        self.patch(_fly, "PAGE", 2)
        rows = [await self.made() for _ in range(3)]
        self.forget_calls()
        found = await self.survey()
        self.assertEqual(set(self.calls()), {"orgs.machines", "orgs.volumes"})
        self.assertEqual((self.pages, len(self.calls())), (4, 4))
        self.assertEqual(len(found), 6)
        for row in rows:
            machine, volume = found[str(row.machine_id)], found[str(row.volume_id)]
            self.assertEqual((machine.user_id, machine.ours), (row.user_id, True))
            self.assertEqual((machine.said, machine.state), ("created", S.STOPPED))
            self.assertIsNotNone(machine.since)
            self.assertEqual((volume.user_id, volume.ours), (row.user_id, True))
            self.assertEqual(volume.attached, row.machine_id)
            self.assertEqual({machine.region, volume.region}, {row.region})

    async def test_a_region_that_does_not_answer_is_named(self) -> None:
        row = await self.made()
        self.world.error_regions = (row.region,)
        found = await self.survey()
        self.assertEqual(self.blind, {row.region})
        self.assertNotIn(row.machine_id, found)

    async def test_what_others_made_in_our_app_is_not_ours_and_elsewhere_not_shown(self) -> None:
        await self.made()
        client = self.client()
        await client.create_app("elsewhere", "personal")
        config = {"image": "registry.example/other:1"}
        for app in (APP, "elsewhere"):
            await client.create_machine(app, "theirs", "fra", config, launch=False)
        found = await self.survey()
        [theirs] = [one for one in found.values() if one.name == "theirs"]
        self.assertEqual((theirs.app, theirs.ours, theirs.user_id), (APP, False, None))

    async def test_a_fly_that_does_not_answer(self) -> None:
        self.fault(kind="status", action="orgs.machines", status=401)
        with self.assertRaises(ProviderError):
            await self.survey()

    # deleting

    def stray(self, one: Sighted, **fields: object) -> Stray:
        values = {name: getattr(one, name) for name in ("id", "kind", "app", "name", "region")}
        values |= {"user_id": one.user_id, "ours": one.ours, "provider": "fly", "reason": ""}
        return Stray(**values | fields)  # type: ignore[arg-type]

    async def test_a_stray_machine_and_then_its_volume_are_deleted(self) -> None:
        row = await self.made()
        found = await self.survey()
        volume = self.stray(found[str(row.volume_id)])
        self.assertFalse(await self.provider.discard(volume), "a machine has it")
        self.assertTrue(await self.provider.discard(self.stray(found[str(row.machine_id)])))
        await self.eventually(lambda: not self.machines())
        self.assertTrue(await self.provider.discard(volume))
        self.assertEqual(self.volumes(), [])
        self.assertTrue(await self.provider.discard(volume), "it is gone")
        self.assertEqual(await self.survey(), {})

    async def test_one_that_was_given_to_another_user_stays(self) -> None:
        row = await self.made()
        one = (await self.survey())[str(row.machine_id)]
        other = self.stray(one, user_id=UserId(str(uuid4())))
        self.assertFalse(await self.provider.discard(other))
        self.assertEqual(len(self.machines()), 1)

    def test_names_that_are_not_of_our_making(self) -> None:
        for name in ("", "u-", "u_!", "u-" + "a" * 25, "u-" + "1" * 26, "x-" + "a" * 26, "vol"):
            self.assertIsNone(named_after(name), name)
