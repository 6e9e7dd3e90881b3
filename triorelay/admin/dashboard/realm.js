// Which relay of the realm holds which id.

function showRealm(status, before) {
  const realm = status.cluster;
  $("realm").hidden = !realm;
  if (!realm) return;
  if (before?.cluster && realm.up !== before.cluster.up) {
    addEvent(realm.up ? "joined" : "lost", "Realm", realm.up ? "reached again" : "cannot be reached");
  }
  say($("realm-title"), `Realm ${realm.realm}`);
  say($("realm-away"), "The engine cannot be reached: what other relays hold is how it was, and nothing goes there.");
  $("realm-away").hidden = realm.up;
  const faults = [[realm.lost, "frame lost on the way", "frames lost on the way"], [realm.garbage, "message not understood", "messages not understood"]];
  say($("realm-faults"), faults.filter(([n]) => n).map(([n, one, many]) => `${count(n)} ${n === 1 ? one : many}`).join(", "));
  keep($("relays"), relaysOf(status), ([name]) => name,
    ([name]) => element("li", {}, element("strong", { textContent: name }), element("span", { className: "note" }), element("ul")),
    (line, [name, ids]) => {
      const [, note, list] = line.children;
      say(note, `${name === realm.relay ? "this relay, " : ""}${plural(ids.length, "id")}`);
      keep(list, ids, (id) => id, (id) => element("li", { className: "id", textContent: idName(id) }), () => {});
    });
}

// This relay comes first, the others by their names.
function relaysOf(status) {
  const relays = new Map();
  for (const [id, name] of status.cluster.elsewhere) relays.set(name, [...(relays.get(name) ?? []), id]);
  const others = [...relays].sort(([one], [other]) => (one < other ? -1 : 1));
  return [[status.cluster.relay, [...new Set(status.clients.map((client) => client.id))]], ...others];
}
