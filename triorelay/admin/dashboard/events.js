// What happened, newest first.

const KEPT = 200;
const SAME_FOR = 10000; // Milliseconds without drops of one kind after which more of them are a new line.
const dropLines = new Map();

function addEvent(kind, subject, text, when = new Date()) {
  const time = element("time", { dateTime: when.toISOString(), textContent: clock(when) });
  const line = element("li", { className: kind }, time, element("span", {}, element("b", { textContent: subject }), ` ${text}`));
  $("events").prepend(line);
  while ($("events").children.length > KEPT) $("events").lastChild.remove();
  $("no-events").hidden = true;
  return line;
}

function addJoined(event) {
  const from = [event.transport, event.principal, event.process && `${event.process} (${event.pid})`];
  addEvent("joined", event.name, `joined: ${from.filter(Boolean).join(", ")}`, new Date(1000 * event.time));
}

function addLeft(event) {
  const why = event.reason === "left" ? "" : `: ${words(event.reason)}`;
  addEvent("left", event.name, `left${why}`, new Date(1000 * event.time));
}

function addDrops(status, before) {
  const earlier = new Map(before.drops.map(([from, to, reason, frames]) => [`${from}-${to}-${reason}`, frames]));
  // A pair that was only summed up before had no more than the last one that was listed.
  const unlisted = before.drops.some(([from]) => from === null) ? Math.min(...before.drops.map(([, , , frames]) => frames)) : 0;
  for (const [from, to, reason, frames] of status.drops) {
    const key = `${from}-${to}-${reason}`;
    const had = earlier.get(key) ?? unlisted;
    if (frames > had) addDrop(key, senderName(from), from === null ? "others" : destinationName(to), reason, frames - had);
  }
}

function senderName(id) {
  return id === null ? "others" : id ? idName(id) : "observer";
}

function destinationName(id) {
  return id ? idName(id) : "the relay";
}

function addDrop(key, from, to, reason, frames) {
  const last = dropLines.get(key);
  const goesOn = last?.line.isConnected && Date.now() - last.when < SAME_FOR;
  const total = frames + (goesOn ? last.frames : 0);
  const text = `to ${to}: ${plural(total, "frame")} dropped, ${words(reason)}`;
  const line = goesOn ? last.line : addEvent("drop", from, text);
  line.lastChild.lastChild.textContent = ` ${text}`;
  dropLines.set(key, { when: Date.now(), frames: total, line });
}

function addWaits(status, before) {
  const waiting = new Map(before.clients.map((client) => [client.key, client]));
  for (const client of status.clients) {
    const was = waiting.get(client.key)?.waiting_for ?? null;
    if (client.waiting_for === was) continue;
    if (client.waiting_for !== null) addEvent("wait", client.name, `waits for ${idName(client.waiting_for)}`);
    else addEvent("wait", client.name, `no longer waits for ${idName(was)}`);
  }
}
