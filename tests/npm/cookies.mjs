// Signs in at an issuer with Supabase's own packages, in each way in which they keep a session in
// cookies, and prints as JSON what the Cookie field of a browser would then be.
//
// node cookies.mjs URL EMAIL PASSWORD

import { createBrowserClient, createServerClient } from "@supabase/ssr";
import { serialize } from "cookie";

const [url, email, password] = process.argv.slice(2);
console.warn = () => {}; // one client after another is what this is about
const key = "sb_publishable_for-nobody";

// As much of a browser as the packages look for. Its jar keeps values as they were written.
const jar = new Map();
globalThis.document = {
  get cookie() {
    return [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
  },
  set cookie(line) {
    const [pair, ...attributes] = line.split("; ");
    const at = pair.indexOf("=");
    if (attributes.includes("Max-Age=0")) jar.delete(pair.slice(0, at));
    else jar.set(pair.slice(0, at), pair.slice(at + 1));
  },
};
const kept = new Map();
globalThis.window = globalThis;
globalThis.location = new URL("https://localhost/");
globalThis.localStorage = {
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, value) => kept.set(name, value),
  removeItem: (name) => kept.delete(name),
};

// The issuer's users have short profiles; a longer one makes a session need more cookies.
const fetchWith = (note) => async (target, options) => {
  const answer = await fetch(target, options);
  if (!answer.ok || answer.status === 204) return answer;
  const content = await answer.json();
  if (content.user) content.user.user_metadata = { note };
  return new Response(JSON.stringify(content), answer);
};

const signIn = async (client) => {
  const { data, error } = await client.auth.signInWithPassword({ email, password });
  if (error) throw error;
  return data.session;
};

const common = (note) => ({ isSingleton: false, global: { fetch: fetchWith(note) } });
const inBrowser = (note, options = {}) =>
  createBrowserClient(url, key, { ...common(note), ...options });

// As a framework on a server does it: the package hands over what to set.
const onServer = (note, options = {}) =>
  createServerClient(url, key, {
    ...common(note),
    ...options,
    cookies: {
      getAll: () => [...jar].map(([name, value]) => ({ name, value: decodeURIComponent(value) })),
      setAll: (all) => {
        for (const { name, value, options } of all) document.cookie = serialize(name, value, options);
      },
    },
  });

const cases = {};
const note = (length) => "née Ω 🌳 ".repeat(Math.ceil(length / 9));
const record = (label, session) => {
  cases[label] = { cookie: document.cookie, token: session?.access_token ?? null };
};

for (const [place, make] of Object.entries({ browser: inBrowser, server: onServer })) {
  for (const encoding of ["base64url", "raw"]) {
    for (const length of [0, 1500, 3000, 5000, 8000]) {
      jar.clear();
      const client = make(note(length), { cookieEncoding: encoding });
      record(`${place}, ${encoding}, profile of ${length}`, await signIn(client));
      await client.auth.stopAutoRefresh();
    }
  }
}

jar.clear();
record("tokens only", await signIn(inBrowser(note(8000), {
  cookies: {
    encode: "tokens-only",
    getAll: () => [...jar].map(([name, value]) => ({ name, value: decodeURIComponent(value) })),
    setAll: (all) => {
      for (const { name, value, options } of all) document.cookie = serialize(name, value, options);
    },
  },
})));

// One jar from here on: a long session, then a short one, a refresh, and the end.
jar.clear();
await signIn(inBrowser(note(8000)));
const client = inBrowser("");
record("a short session after a long one", await signIn(client));
const { data, error } = await client.auth.refreshSession();
if (error) throw error;
record("refreshed", data.session);
jar.set(`${[...jar.keys()][0]}.7`, "left-over");
record("a chunk left over", data.session);
await client.auth.signOut({ scope: "local" });
record("signed out", null);

process.stdout.write(JSON.stringify(cases), () => process.exit(0));
