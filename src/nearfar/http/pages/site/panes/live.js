// Live: what the server does now, from the metrics that Prometheus reads.
import { call, send } from "../api.js";
import { fill, h, loadScript, loadStyle, notice } from "../dom.js";

const EVERY_MS = 2_000;
const KEPT = 150; // samples: five minutes
const NUMBERS = ["Requests", "Errors", "ms", "Rows", "Tokens", "Cut"]; // columns
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export async function open() {
  await loadScript("ui/vendor/uPlot.iife.min.js");
  await loadStyle("ui/vendor/uPlot.min.css");
  return new Live();
}

class Live {
  constructor() {
    this.numbers = h("dl", { class: "numbers" });
    this.failure = h("div");
    this.samples = [];
    this.charts = [
      new Chart("Requests per second", ["requests/s"], (now) => [now.requests]),
      new Chart("Tokens per second", ["tokens/s"], (now) => [now.tokens]),
      new Chart("Latency, ms", ["median", "95%", "99%"], (now) => [now.p50, now.p95, now.p99]),
      new Chart("Waiting tokens", ["tokens"], (now) => [now.queue]),
    ];
    this.requests = h("div");
    this.element = h(
      "section",
      {},
      h("h1", {}, "Live"),
      this.failure,
      this.numbers,
      h("div", { class: "charts" }, this.charts.map((chart) => chart.element)),
      this.requests,
    );
  }

  /** Show the samples, which go on while another pane is shown. */
  resume() {
    this.isShown = true;
    if (!this.samples.length) this.showNumbers({}); // takes their place
    this.timer ??= setInterval(() => this.sample(), EVERY_MS);
    this.sample();
  }

  pause() {
    this.isShown = false;
  }

  async sample() {
    try {
      const now = { at: Date.now() / 1000, series: parse(await (await send("metrics")).text()) };
      fill(this.failure);
      if (this.before) this.show(rates(this.before, now));
      else
        this.show({ at: now.at, queue: total(now, "nearfar_queue_tokens") });
      this.before = now;
      if (this.isShown) await this.list();
    } catch (error) {
      fill(this.failure, notice("error", "The metrics can't be read", error.message));
    }
  }

  async list() {
    try {
      const { requests } = await call("admin/requests");
      fill(
        this.requests,
        h("h2", {}, "Last requests"),
        requests.length
          ? requestTables(requests)
          : notice("empty", "No requests yet", "Each shows here without its texts."),
      );
    } catch (error) {
      fill(this.requests, h("h2", {}, "Last requests"), notice("hint", "Not shown", error.message));
    }
  }

  show(now) {
    this.samples = [...this.samples, now].slice(-KEPT);
    if (!this.isShown) return;
    for (const chart of this.charts) chart.show(this.samples);
    this.showNumbers(now);
  }

  showNumbers(now) {
    const facts = [
      ["Requests", format(now.requests, "/s")],
      ["Tokens", format(now.tokens, "/s")],
      ["Median latency", format(now.p50, " ms")],
      ["99% latency", format(now.p99, " ms")],
      ["Rows per batch", format(now.rows)],
      ["Padding", format(now.padding, "%")],
      ["Errors", format(now.errors, "/s")],
      ["Memory", format(now.memory, " MB")],
    ];
    fill(this.numbers, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }
}

/** Return a table of the keys that sent requests, if there are any, and one of the requests. */
function requestTables(requests) {
  const keys = new Map();
  for (const { key = "", status, tokens = 0 } of requests) {
    const [count, sum, errors] = keys.get(key) ?? [0, 0, 0];
    keys.set(key, [count + 1, sum + tokens, errors + (status >= 400 ? 1 : 0)]);
  }
  return [
    keys.size > 1 || !keys.has("")
      ? table(
          ["Key", "Requests", "Tokens", "Errors"],
          [...keys].map(([key, counts]) => [key || "none", ...counts]),
        )
      : null,
    table(
      ["Time", "Path", "Status", "ms", "Model", "Rows", "Tokens", "Cut", "Error"],
      requests
        .slice(0, 50)
        .map(({ time, path, status, ms, model, rows, tokens, cut, reason }) =>
          [clock.format(time * 1000), path, status, ms.toFixed(1), model, rows, tokens, cut || null, reason]),
    ),
  ];
}

function table(names, rows) {
  const cell = (tag, value, at) =>
    h(tag, { scope: tag === "th" ? "col" : null, class: NUMBERS.includes(names[at]) ? "number" : null }, value ?? "");
  const row = (tag, values) => h("tr", {}, values.map((value, at) => cell(tag, value, at)));
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": names.join(", ") },
    h(
      "table",
      { class: "list" },
      h("thead", {}, row("th", names)),
      h("tbody", {}, rows.map((values) => row("td", values))),
    ),
  );
}

class Chart {
  constructor(title, names, values) {
    this.names = names;
    this.values = values;
    this.place = h("div", { role: "img", "aria-label": title });
    this.element = h("figure", { class: "chart" }, h("figcaption", {}, title), this.place);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
  }

  size() {
    return { width: Math.max(this.place.clientWidth, 200), height: 180 };
  }

  show(samples) {
    const data = [
      samples.map(({ at }) => at),
      ...this.names.map((_, series) => samples.map((now) => this.values(now)[series] ?? null)),
    ];
    if (this.plot) this.plot.setData(data);
    else if (this.place.clientWidth) this.plot = new uPlot(this.options(), data, this.place);
  }

  options() {
    const style = getComputedStyle(document.body),
      colors = ["#14a394", "#e07b39", "#8b7cf0"];
    const axis = {
      stroke: style.getPropertyValue("color"),
      grid: { stroke: "#8883" },
      ticks: { stroke: "#8883" },
      font: "12px system-ui",
    };
    return {
      ...this.size(),
      legend: { show: this.names.length > 1, live: false },
      cursor: { y: false },
      padding: [12, 28, 0, 0],
      scales: {
        x: { range: (_, low, high) => [Math.min(low ?? 0, (high ?? 0) - 60), high ?? 0] },
        y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.1] },
      },
      axes: [
        { ...axis, size: 30, space: 80, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString("en-GB")) },
        { ...axis, size: 56 },
      ],
      series: [
        {},
        ...this.names.map((label, at) => ({ label, stroke: colors[at], width: 2, points: { show: false } })),
      ],
    };
  }
}

/** Return the samples of Prometheus' text format: name → [{labels, value}]. */
function parse(text) {
  const series = new Map();
  for (const line of text.split("\n")) {
    const found = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries(
      [...(found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]),
    );
    series.set(found[1], [...(series.get(found[1]) ?? []), { labels, value: Number(found[3]) }]);
  }
  return series;
}

function total(sample, name, keep = () => true) {
  return (sample.series.get(name) ?? [])
    .filter(({ labels }) => keep(labels))
    .reduce((sum, { value }) => sum + value, 0);
}

/** Return what happened between two samples. Only requests that ran a job count: health checks and this page don't. */
function rates(before, now) {
  const seconds = now.at - before.at,
    isJob = ({ method, route }) => method === "POST" && !route?.startsWith("/admin");
  const grown = (name, keep) => total(now, name, keep) - total(before, name, keep);
  const rows = grown("nearfar_batch_rows_sum"),
    batches = grown("nearfar_batch_rows_count"),
    padded = grown("nearfar_batch_padded_tokens_sum");
  const duration = "nearfar_http_request_duration_seconds";
  const at = (share) => quantile(before, now, `${duration}_bucket`, isJob, share);
  return {
    at: now.at,
    requests: grown(`${duration}_count`, isJob) / seconds,
    tokens: grown("nearfar_tokens_total") / seconds,
    errors: grown(`${duration}_count`, (labels) => isJob(labels) && labels.status >= "400") / seconds,
    p50: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    queue: total(now, "nearfar_queue_tokens"),
    rows: batches ? rows / batches : null,
    padding: padded ? 100 * (1 - grown("nearfar_batch_tokens_sum") / padded) : null,
    memory: total(now, "process_resident_memory_bytes") / 1e6,
  };
}

/** Return a quantile in ms of a histogram's growth, interpolated within its bucket; null without requests. */
function quantile(before, now, name, keep, share) {
  const bounds = [...new Set((now.series.get(name) ?? []).map(({ labels }) => labels.le))].sort(
    (a, b) => limit(a) - limit(b),
  );
  const counts = bounds.map(
    (le) =>
      total(now, name, (labels) => labels.le === le && keep(labels)) -
      total(before, name, (labels) => labels.le === le && keep(labels)),
  );
  const wanted = share * (counts.at(-1) ?? 0);
  if (!wanted) return null;
  const found = counts.findIndex((count) => count >= wanted);
  const low = found ? limit(bounds[found - 1]) : 0,
    below = found ? counts[found - 1] : 0;
  const high = bounds[found] === "+Inf" ? low : limit(bounds[found]);
  return 1000 * (low + ((high - low) * (wanted - below)) / (counts[found] - below || 1));
}

const limit = (le) => (le === "+Inf" ? Infinity : Number(le));
const format = (value, unit = "") =>
  value === null || value === undefined
    ? "–"
    : `${value >= 100 ? Math.round(value).toLocaleString() : value.toFixed(1)}${unit}`;
