"""restic's failures, as its versions write them, and what they mean."""

from twisted.trial.unittest import SynchronousTestCase

from matrix.daemon.faults import explain, harmless, is_refusal

SAVE = "Save(<data/4bb22c>) returned error, retrying after 720ms: server response unexpected: "
OPEN = "Fatal: unable to open config file: "
WHERE = "\nIs there a repository at the following location?\nrest:http://u:***@h/x/\n"


class ExplainTests(SynchronousTestCase):
    def test_refusals_that_stay(self) -> None:
        for status, text, retry in (
            ("507 Insufficient Storage", "full", False),
            ("403 Forbidden", "refused", False),
            ("401 Unauthorized", "credential", True),
        ):
            line = f"{SAVE}{status} ({status[:3]})"
            self.assertTrue(is_refusal(line))
            fault = explain(-9, line + "\n")
            self.assertIn(text, fault.reason)
            self.assertEqual(fault.retry, retry)

    def test_trouble_that_passes_is_no_refusal(self) -> None:
        self.assertFalse(is_refusal(SAVE + "503 Service Unavailable (503)"))
        self.assertFalse(is_refusal("Remove(<lock/a>) failed: 403 Forbidden (403)"))

    def test_exit_codes_of_newer_ones_and_words_of_older(self) -> None:
        for code, text in ((10, "Fatal: repository does not exist\n"), (1, OPEN + "x" + WHERE)):
            self.assertTrue(explain(code, text).no_repository)
        locked = "unable to create lock in backend: repository is already locked exclusively by PID"
        for code, text in ((11, "Fatal: locked\n"), (1, locked)):
            self.assertTrue(explain(code, text).locked)
        for code, text in ((12, ""), (1, "Fatal: wrong password or no key found\n")):
            self.assertFalse(explain(code, text).retry)
            self.assertIn("password", explain(code, text).reason)

    def test_unreachable_repository_says_why(self) -> None:
        fault = explain(1, OPEN + "dial tcp: connection refused" + WHERE)
        self.assertIn("connection refused", fault.reason)
        self.assertTrue(fault.retry)

    def test_anything_else_is_told_in_its_own_words(self) -> None:
        self.assertEqual(explain(1, "warn\nFatal: out of luck\nbye\n").reason, "out of luck")
        self.assertIn("ended with 2", explain(2, "").reason)
        self.assertIn("disk is full", explain(1, "write x: no space left on device").reason)


class HarmlessTests(SynchronousTestCase):
    MARK = "ignoring error for /a: lchown /t/a: operation not permitted\n"
    COUNT = "Fatal: There were 1 errors\n"

    def test_marks_alone(self) -> None:
        self.assertEqual(len(harmless(self.MARK + self.COUNT)), 1)

    def test_content_is_never_harmless(self) -> None:
        for line in (
            "ignoring error for /a: Load(<data/abc>) returned error\n",
            "ignoring error for /a: write /t/a: no space left on device\n",
            "Fatal: repository is gone\n",
        ):
            self.assertEqual(harmless(self.MARK + line + self.COUNT), [])

    def test_silence_is_not_either(self) -> None:
        self.assertEqual(harmless(""), [])
