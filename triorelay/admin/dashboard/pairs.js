// Which client sends to which, and what was dropped.

const SHOWN_PAIRS = 5;
const DRAWN_PAIRS = 4096; // Of 65,025 that there could be; the busiest.
const LARGEST_CELL = 34;
const LABELLED_FROM = 11; // Pixels of a cell that has room for an id beside it.

function showPairs(status, before) {
  const pairs = [...status.pairs].sort((one, other) => other[2] - one[2]).slice(0, DRAWN_PAIRS);
  const ids = [...new Set(pairs.flatMap(([from, to]) => [from, to]))].sort((one, other) => one - other);
  $("heat").toggleAttribute("hidden", !pairs.length);
  $("heat-legend").hidden = !pairs.length;
  $("no-pairs").hidden = pairs.length > 0;
  if (pairs.length) drawHeat(ids, pairs);
  listPairs(pairs.slice(0, SHOWN_PAIRS), status, before);
}

function drawHeat(ids, pairs) {
  const svg = $("heat");
  const size = Math.min(LARGEST_CELL, Math.max(2, 400 / (ids.length + 1)));
  if (svg.dataset.ids !== ids.join()) {
    svg.dataset.ids = ids.join();
    svg.replaceChildren(...heatGround(ids, size), drawn("g", {}));
    svg.setAttribute("viewBox", `0 0 ${(ids.length + 1) * size} ${(ids.length + 1) * size}`);
  }
  const most = pairs[0][2];
  const place = new Map(ids.map((id, index) => [id, (index + 1) * size]));
  keep(svg.lastChild, pairs, ([from, to]) => `${from}-${to}`,
    ([from, to]) => {
      const gap = size > 8 ? 1.5 : 0.25;
      const cell = drawn("rect", { class: "cell", x: place.get(to) + gap, y: place.get(from) + gap, width: size - 2 * gap, height: size - 2 * gap, rx: size / 10 });
      cell.append(drawn("title", {}));
      return cell;
    },
    (cell, [from, to, frames]) => {
      cell.setAttribute("fill-opacity", (0.14 + (0.86 * Math.log1p(frames - 1)) / Math.max(Math.log1p(most - 1), 1)).toFixed(3));
      say(cell.firstChild, `${idName(from)} to ${idName(to)}: ${plural(frames, "frame")}`);
    });
  say($("heat-most"), count(most));
}

function heatGround(ids, size) {
  const ground = drawn("rect", { class: "ground", x: size, y: size, width: ids.length * size, height: ids.length * size, rx: size / 8 });
  if (size < LABELLED_FROM) return [ground];
  const labels = ids.flatMap((id, index) => {
    const middle = (index + 1.5) * size;
    const text = (x, y) => drawn("text", { x, y, "font-size": size * (idName(id).length > 1 ? 0.3 : 0.42) }, idName(id));
    return [text(size / 2, middle), text(middle, size / 2)];
  });
  return [ground, ...labels];
}

function listPairs(pairs, status, before) {
  const seconds = before ? status.uptime_seconds - before.uptime_seconds : 0;
  const earlier = new Map((before?.pairs ?? []).map(([from, to, frames]) => [`${from}-${to}`, frames]));
  keep($("pairs"), pairs, ([from, to]) => `${from}-${to}`,
    ([from, to]) => element("li", {},
      element("span", { className: "id", textContent: idName(from) }), "to",
      element("span", { className: "id", textContent: idName(to) }),
      element("span", { className: "total" }), element("span", { className: "rate" })),
    (line, [from, to, frames]) => {
      const [total, now] = line.querySelectorAll(".total, .rate");
      say(total, count(frames));
      say(now, seconds ? `${rate((frames - (earlier.get(`${from}-${to}`) ?? 0)) / seconds)}/s` : "");
    });
}

function showDrops(status) {
  const reasons = Object.entries(status.ledger.dropped).sort((one, other) => other[1] - one[1]);
  const most = Math.max(1, ...reasons.map(([, frames]) => frames));
  $("no-drops").hidden = reasons.length > 0;
  keep($("drops"), reasons, ([reason]) => reason,
    ([reason]) => element("li", {}, element("span", { textContent: words(reason) }), bar(), element("span", { className: "total" }), element("span", { className: "who" })),
    (line, [reason, frames]) => {
      const [, share, total, who] = line.children;
      say(total, count(frames));
      fill(share, frames / most);
      say(who, worstPair(status.drops, reason));
    });
}

function worstPair(drops, reason) {
  const here = drops.filter((drop) => drop[2] === reason).sort((one, other) => other[3] - one[3]);
  const pairs = here.filter(([from]) => from !== null);
  if (!pairs.length) return here.length ? "many pairs" : "";
  const [from, to] = pairs[0];
  // A relay that has too many to list sums up the rest.
  const others = pairs.length < here.length ? "many more pairs" : plural(pairs.length - 1, "more pair");
  return `${from ? idName(from) : "observers"} to ${destinationName(to)}${here.length > 1 ? ` and ${others}` : ""}`;
}
