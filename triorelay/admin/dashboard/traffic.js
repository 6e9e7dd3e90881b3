// The traffic of the last two minutes, and the totals.

const SAMPLES = 121;
const history_ = { in: [], out: [] };

function addSample(into, out) {
  for (const [line, value] of [[history_.in, into], [history_.out, out]]) {
    line.push(value);
    if (line.length > SAMPLES) line.shift();
  }
}

// The top of the scale: 1, 2 or 5 times a power of ten, so that its middle is a round number too.
function scaleTop(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return power * [1, 2, 5, 10].find((step) => step * power >= most);
}

function points(line, top) {
  const start = SAMPLES - line.length;
  return line.map((value, index) => `${start + index},${(100 - (100 * value) / top).toFixed(2)}`);
}

function drawTraffic() {
  const most = Math.max(0, ...history_.in, ...history_.out);
  const top = scaleTop(most);
  const into = points(history_.in, top);
  if (into.length > 1) {
    $("line-in").setAttribute("d", `M${into.join("L")}`);
    $("line-out").setAttribute("d", `M${points(history_.out, top).join("L")}`);
    $("area-in").setAttribute("d", `M${SAMPLES - into.length},100L${into.join("L")}L${SAMPLES - 1},100Z`);
  }
  say($("chart-top"), count(top));
  say($("chart-middle"), top > 1 ? count(top / 2) : "");
  const [now, gone] = [history_.in.at(-1) ?? 0, history_.out.at(-1) ?? 0];
  say($("rate-in"), rate(now));
  say($("rate-out"), rate(gone));
  $("chart").setAttribute("aria-label", `Frames per second: ${rate(now)} in, ${rate(gone)} out; at most ${rate(most)} in the last two minutes`);
}

function sum(counts) {
  return Object.values(counts).reduce((total, n) => total + n, 0);
}

function showTraffic(status, before) {
  const { accepted, written, queued, dropped } = status.ledger;
  const total = sum(dropped);
  const seconds = before ? status.uptime_seconds - before.uptime_seconds : 0;
  if (seconds > 0) {
    addSample((accepted - before.ledger.accepted) / seconds, (written - before.ledger.written) / seconds);
    const drops = (total - sum(before.ledger.dropped)) / seconds;
    say($("dropped-rate"), drops ? `${rate(drops)} per second now` : "frames since the start");
  }
  drawTraffic();
  say($("clients-count"), status.clients.length);
  say($("queued"), count(queued));
  say($("written"), count(written));
  say($("dropped"), count(total));
  $("dropped-figure").classList.toggle("some", total > 0);
}
