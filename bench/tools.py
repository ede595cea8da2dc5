"""The tools that make load: wrk, k6, curl, and our own clients. All run on the load core."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers import Peer
from bench.peers.base import said
from bench.processes import LOAD_CORE, BenchError, end, on_core
from bench.site import ROOT

K6 = str(Path(sys.executable).with_name("k6"))
PATIENCE_SECONDS = 120.0
"""Beyond what a measurement is to last."""

WARM_SECONDS = 2
"""Of k6, before it measures."""

WRK_SCRIPT = """
wrk.method = "%s"
wrk.headers["Authorization"] = "Bearer %s"
%s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, ' ..
    '"errors": %%d}\\n', summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""

K6_SCRIPT = """
import http from 'k6/http';
export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(99)', 'count'],
  scenarios: { fixed: { executor: 'constant-arrival-rate', rate: __ENV.RATE, timeUnit: '1s',
    duration: __ENV.DURATION, preAllocatedVUs: 64, maxVUs: 64 } },
  // Never missed: it makes k6 keep these times apart.
  thresholds: { 'http_req_duration{phase:measured}': ['p(99)>=0'] },
};
const headers = { Authorization: `Bearer ${__ENV.TOKEN}` };
const early = { headers, tags: { phase: 'connecting' } };
const late = { headers, tags: { phase: 'measured' } };
export function setup() { return Date.now() + 1000 * __ENV.WARM; }
export default function (from) { http.get(__ENV.URL, Date.now() < from ? early : late); }
export function handleSummary(data) { return { stdout: JSON.stringify(data.metrics) }; }
"""


def run(command: list[str], seconds: float, env: Mapping[str, str] | None = None) -> str:
    """
    Run a tool to its end.

    @raise BenchError: it failed, or did not end in time.
    """
    with on_core(LOAD_CORE):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds + PATIENCE_SECONDS,
                env=env,
                check=False,
            )
        except FileNotFoundError:
            raise BenchError(f"{command[0]} is not installed; run script/bench as root") from None
        except subprocess.TimeoutExpired:
            raise BenchError(f"{command[0]} did not end in time") from None
    if done.returncode != 0:
        raise BenchError(f"{command[0]} failed: {done.stderr[-1500:] or done.stdout[-1500:]}")
    return done.stdout


def wrk(peer: Peer, path: str, connections: int, seconds: int, body: int = 0) -> dict[str, float]:
    """
    As many requests as C{connections} can, for a while.

    @param body: bytes to POST; 0 for a GET.
    """
    script = peer.directory / "wrk.lua"
    lua_body = f'wrk.body = string.rep("x", {body})' if body else ""
    script.write_text(WRK_SCRIPT % ("POST" if body else "GET", peer.token, lua_body))
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script)]
    output = run(["wrk", *options, f"{peer.url}{path}"], seconds)
    found: dict[str, float] = json.loads(output.strip().rpartition("\n")[2])
    if found["errors"]:
        raise BenchError(f"{peer.name}: {found['errors']} errors\n{output}")
    return found


def k6(peer: Peer, path: str, rate: int, seconds: int) -> dict[str, float]:
    """
    A fixed rate of requests, whatever the answers' pace.

    Latencies are those after the first seconds, in which all connections are made: while
    handshakes are under way everything waits, which is not what is asked here.
    """
    script = peer.directory / "k6.js"
    script.write_text(K6_SCRIPT)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(peer.directory),
        "K6_NO_USAGE_REPORT": "true",
        "SSL_CERT_FILE": str(peer.site.ca),
        "URL": f"{peer.url}{path}",
        "TOKEN": peer.token,
        "RATE": str(rate),
        "DURATION": f"{WARM_SECONDS + seconds}s",
        "WARM": str(WARM_SECONDS),
        "GOGC": "400",  # its pauses would be taken for the proxy's
    }
    output = run([K6, "run", "--quiet", str(script)], WARM_SECONDS + seconds, environment)
    metrics = json.loads(output[output.index("{") :])
    if metrics["http_req_failed"]["values"]["rate"] > 0:
        raise BenchError(f"{peer.name}: k6 saw failed requests")
    dropped = metrics.get("dropped_iterations", {}).get("values", {}).get("count", 0)
    times = metrics["http_req_duration{phase:measured}"]["values"]
    return {
        "p50_ms": times["med"],
        "p99_ms": times["p(99)"],
        "requests": metrics["http_reqs"]["values"]["count"],
        "dropped": dropped,
    }


def transfer(peer: Peer, connections: int, size: int, upload: bool) -> float:
    """
    Move C{size} bytes in all, shared among some connections that run at once.

    @return: seconds until the last was done.
    """
    if shutil.which("curl") is None:
        raise BenchError("curl is not installed; run script/bench as root")
    share = size // connections
    source = peer.directory / "upload"
    with source.open("wb") as file:
        file.truncate(share)  # all zeros, and no room on disk
    form = "%{http_code} %{size_upload} %{size_download} %{time_total}\n"
    options = ["--silent", "--show-error", "--no-buffer", "--http1.1", "--output", "/dev/null"]
    options += ["--cacert", str(peer.site.ca), "--write-out", form, "--header", "Expect:"]
    options += ["--header", f"Authorization: Bearer {peer.token}"]
    if upload:
        one = [*options, "--request", "POST", "--upload-file", str(source), f"{peer.url}/sink"]
    else:
        one = [*options, f"{peer.url}/download?{share}"]
    with on_core(LOAD_CORE):
        curls = [
            subprocess.Popen(["curl", *one], stdout=subprocess.PIPE, text=True)
            for _ in range(connections)
        ]
    outputs = [curl.communicate(timeout=PATIENCE_SECONDS * 5)[0].split() for curl in curls]
    for status, sent, received, _ in outputs:
        if status != "200" or int(sent if upload else received) != share:
            raise BenchError(f"{peer.name}: a transfer ended with {status} after {sent}/{received}")
    return max(float(output[3]) for output in outputs)


@contextmanager
def client(
    peer: Peer, module: str, *arguments: str, **task: Any
) -> Iterator[Callable[[], dict[str, float]]]:
    """
    One of our own clients, set up and ready. What is yielded makes it measure, and returns
    its result while it still holds its connections.
    """
    with on_core(LOAD_CORE):
        given = {"port": peer.port, "ca": str(peer.site.ca), "token": peer.token, **task}
        process = subprocess.Popen(
            [sys.executable, "-m", f"bench.clients.{module}", json.dumps(given), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    told, heard = process.stdin, process.stdout

    def measure() -> dict[str, float]:
        told.write("\n")
        told.flush()
        line = heard.readline()
        if not line:
            raise BenchError(f"{peer.name}: the client {module} ended: see above")
        result: dict[str, float] = json.loads(line)
        return result

    try:
        if heard.readline() != "ready\n":
            raise BenchError(f"{peer.name}: the client {module} ended: see above")
        yield measure
        told.close()
        process.wait(PATIENCE_SECONDS)
    finally:
        end(process)
        heard.close()


def tool_versions() -> str:
    """Of the load generators."""
    told = said(["wrk", "-v"]), said([K6, "version"]), said(["curl", "-V"])
    return ", ".join(" ".join(text.split()[:2]) for text in told)
