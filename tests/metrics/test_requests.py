"""One finished request is counted once, by kind, class and phases."""

from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics import Registry, RequestMeter, process_registry, series


class Done(NamedTuple):
    status: int
    auth_s: float | None
    route_s: float | None
    wake_s: float | None
    ready_s: float | None
    upstream_s: float | None
    total_s: float


class RequestMeterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = Registry()
        self.meter = RequestMeter(self.registry)

    def phase(self, name: str) -> int:
        return sum(self.registry.histogram(series.REQUEST_SECONDS, name).counts)

    def count(self, kind: str, status: str) -> float:
        return self.registry.counter(series.REQUESTS, kind, status).value

    def test_warm_request_counts_only_the_phases_it_went_through(self) -> None:
        self.meter.count([Done(200, 1e-5, 1e-5, None, None, 0.002, 0.003)])
        self.assertEqual(self.count("proxied", "2xx"), 1)
        self.assertEqual(self.count("own", "2xx"), 0)
        phases = {p: self.phase(p) for p in ("auth", "route", "wake", "ready", "upstream", "total")}
        self.assertEqual(
            phases, {"auth": 1, "route": 1, "wake": 0, "ready": 0, "upstream": 1, "total": 1}
        )

    def test_waking_request_counts_each_phase(self) -> None:
        self.meter.count([Done(101, 0.1, 0.1, 0.4, 0.2, 0.1, 0.9)])
        self.assertEqual(self.count("proxied", "1xx"), 1)
        self.assertEqual((self.phase("wake"), self.phase("ready")), (1, 1))

    def test_refused_request(self) -> None:
        self.meter.count([Done(401, None, None, None, None, None, 0.001)])
        self.assertEqual(self.count("own", "4xx"), 1)
        self.assertEqual((self.phase("auth"), self.phase("total")), (0, 1))

    def test_a_status_out_of_range_is_counted_as_other(self) -> None:
        odd = [Done(status, None, None, None, None, 0.1, 0.0) for status in (0, 99, 600, 999)]
        self.meter.count(odd)
        self.assertEqual(self.count("proxied", "other"), 4)

    def test_many_at_once_are_counted_one_by_one(self) -> None:
        self.meter.count(
            [
                Done(200, 1e-5, 1e-5, None, None, 0.5, 1.0),
                Done(404, 1e-5, 1e-5, None, None, 0.5, 2.0),
                Done(204, 1e-5, 1e-5, None, None, 0.5, 3.0),
                Done(401, None, None, None, None, None, 4.0),
            ]
        )
        counted = [self.count("proxied", "2xx"), self.count("proxied", "4xx")]
        self.assertEqual([*counted, self.count("own", "4xx")], [2, 1, 1])
        self.assertEqual((self.phase("auth"), self.phase("total")), (3, 4))
        self.assertEqual(self.registry.histogram(series.REQUEST_SECONDS, "total").total, 10.0)


class ProcessRegistryTests(SynchronousTestCase):
    def test_exposes_process_interpreter_and_build(self) -> None:
        _, text = process_registry().render()
        for name in (
            b"process_resident_memory_bytes ",
            b"process_open_fds ",
            b"python_gc_collections_total{",
            b"python_info{",
            b'matrix_build_info{python="',
        ):
            self.assertIn(b"\n" + name, text)

    def test_two_in_one_process_do_not_clash(self) -> None:
        first, second = process_registry(), process_registry()
        first.counter(series.AUTH, "cached").value += 1
        self.assertEqual(second.counter(series.AUTH, "cached").value, 0)
