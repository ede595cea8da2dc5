"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const page = find("wake"), bar = find("bar"), fill = find("fill"), elapsed = find("elapsed");
  const words = {
    queued: "Waiting its turn to start.",
    suspending: "Your machine is just falling asleep, and is woken right after.",
    provisioning: "Making your machine. The first time takes longer.",
    starting: "Starting your machine.",
    waiting: "Waiting for your machine to answer.",
    restoring: "Bringing back your data.",
    ready: "Ready. Taking you there.",
  };
  // Which step of the list a state belongs to; one that is not named here is a kind of start.
  const places = { resting: 0, queued: 0, suspending: 0, waiting: 2, restoring: 2, awake: 2, ready: 3 };
  const unknownEstimate = 4000; // ms: a cold start; better to be early than to stand still
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let estimate = Number(page.dataset.estimate) || unknownEstimate;
  let began = performance.now();
  let state = "";
  let shown = 0;
  let percent = null; // of the data that are brought back, where that is known
  let spoken = -1;

  // Goes on to the wanted address, which is never another origin; where the page does not name it,
  // it is the page's own. The server never saw the fragment: only a reload keeps it.
  const go = () => {
    const wanted = new URL(page.dataset.wanted || location.href, location.origin);
    const here = wanted.pathname + wanted.search === location.pathname + location.search;
    if (wanted.origin !== location.origin) location.replace("/");
    else if (here && location.hash) location.reload();
    else location.replace(wanted.href);
  };

  // The bar slows down as the estimate passes, and never claims to be done before it is.
  const draw = () => {
    const passed = performance.now() - began;
    const known = state === "restoring" && percent !== null;
    const share = state === "ready" ? 1 : known ? (0.97 * percent) / 100 : 0.97 * (1 - Math.exp((-1.7 * passed) / estimate));
    shown = known ? share : Math.max(shown, share);
    fill.style.transform = `translateX(${(shown - 1) * 100}%)`;
    elapsed.textContent = `${(passed / 1000).toFixed(calm ? 0 : 1)} s`;
    const second = Math.floor(passed / 1000);
    if (second !== spoken || shown === 1) {
      spoken = second;
      bar.setAttribute("aria-valuenow", String(Math.round(shown * 100)));
    }
  };

  const enter = (next) => {
    if (next === state) return;
    state = next;
    const text = words[next] || words.starting;
    bar.setAttribute("aria-valuetext", text);
    find("status").textContent = text;
    const at = places[next] ?? 1;
    Array.from(find("steps").children).forEach((step, place) => {
      step.className = place < at || next === "ready" ? "done" : place === at ? "now" : "";
      if (place === 1) step.textContent = next === "provisioning" ? "Making your machine" : "Starting";
      if (place === 2) step.textContent = next === "restoring" ? "Bringing back your data" : "Waiting for its answer";
    });
  };

  const fail = (problem) => {
    clearInterval(timer);
    const card = find("failed").content.cloneNode(true);
    card.querySelector("h1").textContent = problem.title || "Something went wrong";
    card.querySelector(".detail").textContent = problem.detail || "";
    const wait = Math.ceil(Number(problem.retry_after) || 0);
    card.querySelector(".again").textContent = wait > 0 ? `Another try makes sense in ${wait}\u00a0s.` : "";
    card.querySelector("a").addEventListener("click", (event) => { event.preventDefault(); go(); });
    find("progress").hidden = true;
    find("failure").replaceChildren(card);
    document.title = "Your machine did not wake · Matrix";
  };

  const timer = setInterval(draw, calm ? 1000 : 100);
  draw();
  if (!window.EventSource) { setTimeout(go, 2000); return; }

  const source = new EventSource(page.dataset.events);
  source.addEventListener("progress", (event) => {
    const news = JSON.parse(event.data);
    if (news.estimate_ms > 0) estimate = news.estimate_ms;
    if (news.elapsed_ms >= 0) began = performance.now() - news.elapsed_ms;
    percent = news.percent ?? null;
    enter(news.state);
    if (percent !== null) bar.setAttribute("aria-valuetext", `${words.restoring} ${percent} %`);
    draw();
  });
  source.addEventListener("ready", () => {
    source.close();
    enter("ready");
    draw();
    clearInterval(timer);
    go();
  });
  source.addEventListener("failed", (event) => {
    source.close();
    fail(JSON.parse(event.data));
  });
  // The browser reconnects a lost stream by itself; one that was refused it gives up, and
  // then asking for the wanted page again tells what is the matter.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(go, 2000);
  });
})();
