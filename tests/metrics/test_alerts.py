"""The rules for Prometheus ask for series that there are."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from matrix.metrics.series import TABLE, CounterSeries

RULES = Path(__file__).parents[2] / "deploy" / "alerts.yml"


class AlertTests(SynchronousTestCase):
    def test_each_series_exists(self) -> None:
        known = {one.name + ("_total" if isinstance(one, CounterSeries) else "") for one in TABLE}
        expressions = re.findall(r"^\s*expr: (.*)$", RULES.read_text("utf-8"), re.MULTILINE)
        self.assertTrue(expressions)
        for expression in expressions:
            asked = set(re.findall(r"matrix_\w+", expression))
            self.assertTrue(asked)
            self.assertLessEqual(asked, known)
