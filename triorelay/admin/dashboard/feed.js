// Following /events: by fetch, because an EventSource cannot carry a token. Lost connections are tried again.

const SILENCE = 5000; // A status comes each second; after five without one the connection is as good as gone.
const SLOWEST_RETRY = 4000;
const TOKEN_KEY = "triorelay-token";

class TokenNeeded extends Error {}

// The token comes once in the fragment, which no server sees, and leaves the address bar at once. Returns it, if any.
function takeTokenFromFragment() {
  const token = decoded(location.hash.slice(1)).replace(/^token=/, "");
  if (token) {
    rememberToken(token);
    history.replaceState(null, "", location.pathname);
  }
  return token;
}

// A token that a user types after the # has unencoded percent signs, and the browser encodes the rest.
function decoded(text) {
  return text.replace(/(?:%[\da-f]{2})+/gi, (escapes) => {
    try {
      return decodeURIComponent(escapes);
    } catch {
      return escapes;
    }
  });
}

function rememberToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

function knownToken() {
  return sessionStorage.getItem(TOKEN_KEY) ?? "";
}

function request(path, options = {}) {
  const token = knownToken();
  if (!/^[ -~]*$/.test(token)) throw new TokenNeeded("a token is printable ASCII");
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(path, { ...options, headers, cache: "no-store" });
}

async function failure(response) {
  const said = await response.json().catch(() => ({}));
  return said.error ?? `the relay answered ${response.status}`;
}

async function* linesOf(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

async function followOnce(onOpen, onEvent) {
  const abort = new AbortController();
  let watchdog;
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => abort.abort(), SILENCE);
  };
  alive();
  try {
    const response = await request("/events", { signal: abort.signal });
    if (response.status === 401) throw new TokenNeeded(await failure(response));
    if (!response.ok) throw new Error(await failure(response));
    onOpen();
    let name = "";
    for await (const line of linesOf(response.body, alive)) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) onEvent(name, JSON.parse(line.slice(6)));
    }
  } finally {
    clearTimeout(watchdog);
  }
}

// Calls onEvent(name, data) for what happens, onLost(why) once for each connection lost, and waits for askToken(why).
async function follow({ onOpen, onEvent, onLost, askToken }) {
  for (let pause = 250; ; pause = Math.min(2 * pause, SLOWEST_RETRY)) {
    const token = knownToken();
    let why = "the relay ended the connection";
    try {
      await followOnce(() => { pause = 250; onOpen(); }, onEvent);
    } catch (error) {
      if (error instanceof TokenNeeded) {
        // Another one may have come meanwhile.
        if (token === knownToken()) await askToken(error.message);
        continue;
      }
      why = error.name === "Error" ? error.message : "the relay cannot be reached";
    }
    onLost(why);
    await new Promise((resume) => setTimeout(resume, pause));
  }
}
