"""The reactor that tests run on is the one that C{twistd matrix} runs on."""

import sys

if "twisted.internet.reactor" not in sys.modules:
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())
