// The connected clients, what waits for them, and which client each of them waits for.

const LONG_WAIT = 5; // Seconds; the same as in the alert that the documentation proposes.
const FULL_BAR = 1000; // Frames; a few in a queue are nothing to look at.

function clientRow(client) {
  const cell = (name, label, ...children) => {
    const made = element("td", { className: name }, ...children);
    made.setAttribute("role", "cell");
    if (label) made.dataset.label = label;
    return made;
  };
  const close = element("button", { type: "button", textContent: "Close" });
  close.setAttribute("aria-label", `Close ${client.name}`);
  close.addEventListener("click", () => askToClose(client.id));
  const row = element(
    "tr",
    {},
    cell("who", "", element("span", { className: "id" })),
    cell("from", "", element("span"), element("span", { className: "second" })),
    cell("principal", ""),
    cell("since", "", element("span"), element("span", { className: "second" })),
    cell("sent number", "sent/s"),
    cell("received number", "received/s"),
    cell("depth-cell", "queue", element("div", { className: "depth" }, element("span"), bar())),
    cell("waits", ""),
    cell("close", "", close),
  );
  row.setAttribute("role", "row");
  return row;
}

function updateRow(row, client, rates, deepest, awaited) {
  const [who, from, principal, since, sent, received, depth, waits, close] = row.cells;
  const process = client.process ? `${client.process} (${client.pid})` : "";
  say(who.firstChild, client.shared ? `${client.name} (1 of ${client.holders})` : client.name);
  say(from.firstChild, client.address || client.transport);
  say(from.lastChild, [client.address && client.transport, process, client.events && "events"].filter(Boolean).join(" · "));
  say(principal, client.principal || "–");
  say(since.firstChild, clock(ago(client.connected_seconds)));
  say(since.lastChild, duration(client.connected_seconds));
  say(sent, rate(rates.sent));
  say(received, rate(rates.received));
  say(depth.firstChild.firstChild, count(client.queued));
  fill(depth.firstChild.lastChild, client.queued / deepest);
  showWaiting(waits, client);
  close.firstChild.hidden = !closingAllowed;
  row.classList.toggle("awaited", awaited);
}

function showWaiting(cell, client) {
  if (client.waiting_for === null) {
    cell.replaceChildren();
    return;
  }
  if (!cell.firstChild) cell.append(element("span", { className: "chip" }));
  say(cell.firstChild, `waits for ${idName(client.waiting_for)}, ${duration(client.waiting_seconds)}`);
}

function perSecond(status, before) {
  const seconds = before ? status.uptime_seconds - before.uptime_seconds : 0;
  const earlier = new Map((before?.clients ?? []).map((client) => [client.id, client]));
  return (client) => {
    const was = earlier.get(client.id);
    if (!was || !seconds) return { sent: 0, received: 0 };
    return { sent: (client.sent - was.sent) / seconds, received: (client.received - was.received) / seconds };
  };
}

// Clients that share an id are told apart by their place among them.
function numberHolders({ clients, cluster }) {
  const holders = new Map();
  for (const client of clients) {
    holders.set(client.id, (holders.get(client.id) ?? 0) + 1);
    client.key = `${client.id}/${holders.get(client.id)}`;
  }
  for (const [id, , n] of cluster?.shared ?? []) holders.set(id, (holders.get(id) ?? 0) + n);
  for (const client of clients) client.holders = holders.get(client.id);
}

function showClients(status, before) {
  const rates = perSecond(status, before);
  const deepest = Math.max(FULL_BAR, ...status.clients.map((client) => client.queued));
  const awaited = new Set(status.clients.map((client) => client.waiting_for));
  $("clients").hidden = !status.clients.length;
  $("nobody").hidden = status.clients.length > 0;
  say($("nobody"), `No client is connected. The relay listens at ${status.listeners.join(", ")}.`);
  keep($("clients").tBodies[0], status.clients, (client) => client.key, clientRow,
    (row, client) => updateRow(row, client, rates(client), deepest, awaited.has(client.id)));
}

function showWaits(status) {
  const waiting = status.clients
    .filter((client) => client.waiting_for !== null)
    .sort((one, other) => other.waiting_seconds - one.waiting_seconds);
  $("waits").hidden = !waiting.length;
  $("waits").classList.toggle("long", waiting.some((client) => client.waiting_seconds >= LONG_WAIT));
  // Of those that share an id, the one for which most waits.
  const queued = new Map();
  for (const { id, queued: depth } of status.clients) queued.set(id, Math.max(depth, queued.get(id) ?? 0));
  keep($("waits-list"), waiting, (client) => client.key,
    () => element("li", {}, element("strong"), element("span")),
    (line, client) => {
      say(line.firstChild, `${client.name} waits for ${idName(client.waiting_for)}`);
      const depth = queued.get(client.waiting_for);
      say(line.lastChild, `since ${clock(ago(client.waiting_seconds))}, ${duration(client.waiting_seconds)}` +
        (depth === undefined ? "" : `; ${plural(depth, "frame")} queued there`));
    });
}
