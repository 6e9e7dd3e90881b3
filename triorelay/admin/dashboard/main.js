// From events to the page.

let before = null;
let closingAllowed = false;

const STATES = { connecting: "connecting", live: "live", draining: "draining", lost: "reconnecting" };

function showState(state) {
  $("state").dataset.state = state;
  say($("state-text"), STATES[state]);
}

function showStatus(status) {
  if (before && status.uptime_seconds < before.uptime_seconds) {
    addEvent("lost", "Relay", "was restarted; counters start again");
    before = null;
  }
  closingAllowed = !status.draining;
  showState(status.draining ? "draining" : "live");
  numberHolders(status);
  if (before) {
    if (status.draining && !before.draining) addEvent("wait", "Relay", "is shutting down");
    addDrops(status, before);
    addWaits(status, before);
  }
  say($("version"), status.version);
  const from = status.took_over ? `, took over from ${status.took_over.from_version} ${duration(status.took_over.seconds_ago)} ago` : "";
  say($("uptime"), `up ${duration(status.uptime_seconds)}${from} at ${status.listeners.join(", ")}`);
  showWaits(status);
  showTraffic(status, before);
  showClients(status, before);
  showRealm(status, before);
  showPairs(status, before);
  showDrops(status);
  const waiting = status.clients.filter((client) => client.waiting_for !== null).length;
  document.title = `${waiting ? `(${waiting} waiting) ` : ""}triorelay: ${plural(status.clients.length, "client")}`;
  before = status;
}

function onEvent(name, data) {
  if (name === "status") showStatus(data);
  else if (name === "joined") addJoined(data);
  else if (name === "left") addLeft(data);
  else if (name === "skipped") addEvent("lost", plural(data.events, "event"), "came too fast to be shown");
}

let lost = false;

function onOpen() {
  if (lost) addEvent("joined", "Dashboard", "connected again");
  lost = false;
  $("lost").hidden = true;
}

function onLost(why) {
  if (!lost) addEvent("lost", "Connection", `lost: ${why}; trying again`);
  $("lost").hidden = false;
  say($("lost"), `No connection: ${why}. Trying again by itself; ${before ? "what is shown is how it was." : "nothing to show yet."}`);
  lost = true;
  closingAllowed = false;
  for (const button of document.querySelectorAll("td button")) button.hidden = true;
  showState("lost");
  document.title = "(no connection) triorelay";
}

function askToken(why) {
  showState("connecting");
  $("token-why").textContent = `${why}. It is in the file that the relay got as its admin token.`;
  $("token").value = "";
  $("token-dialog").showModal();
  return new Promise((resume) => {
    $("token-dialog").addEventListener("close", () => {
      rememberToken($("token").value.trim());
      resume();
    }, { once: true });
  });
}

function askToClose(id) {
  const name = idName(id);
  say($("close-title"), `Close ${name}?`);
  say($("close-yes"), `Close ${name}`);
  const dialog = $("close-dialog");
  dialog.returnValue = "";
  dialog.addEventListener("close", () => dialog.returnValue === "close" && closeClient(id), { once: true });
  dialog.showModal();
}

async function closeClient(id) {
  const name = idName(id);
  try {
    // Not by name: browsers take /./ out of a path.
    const response = await request(`/clients/${hexName(id)}/close`, { method: "POST", headers: { "X-Triorelay": "1" } });
    if (!response.ok) addEvent("lost", name, `was not closed: ${await failure(response)}`);
  } catch {
    addEvent("lost", name, "was not closed: the relay cannot be reached");
  }
}

// An address with a token that is put into the page that is open does not load it again.
function takeLateToken() {
  const token = takeTokenFromFragment();
  if (!token || !$("token-dialog").open) return;
  $("token").value = token;
  $("token-dialog").close();
}

takeTokenFromFragment();
addEventListener("hashchange", takeLateToken);
follow({ onOpen, onEvent, onLost, askToken });
