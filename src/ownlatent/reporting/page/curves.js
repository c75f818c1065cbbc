// Lines that can be looked at closely: one panel for each column, one line for each run.

function inkOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A panel with its chart. x: shared values; lines: {label, values, colour}. */
function panel(into, title, x, lines, { log = false, x_title = "step" } = {}) {
  const box = element("div", { className: "panel" }, element("h3", { textContent: title }));
  into.append(box);
  const axis = { stroke: inkOf("--soft"), grid: { stroke: inkOf("--line"), width: 1 }, ticks: { stroke: inkOf("--line") } };
  const small = (u, values) => values.map((v) => (v === null ? "" : Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(+v.toPrecision(4))));
  const shown = (u, v) => (v === null || v === undefined ? "" : String(+v.toPrecision(4)));
  const chart = new uPlot(
    {
      width: Math.max(240, box.clientWidth - 16),
      height: 200,
      cursor: { y: false, sync: { key: x_title } },
      scales: { x: { time: false }, y: log ? { distr: 3 } : {} },
      axes: [{ ...axis, values: small, size: 36 }, { ...axis, values: small, size: 56 }],
      series: [
        { label: x_title, value: shown },
        ...lines.map((line, n) => ({
          label: line.label,
          stroke: line.colour,
          dash: n ? [6, 2 * n] : undefined, // told apart in gray too
          width: 1.6,
          value: shown,
          spanGaps: false,
          points: { show: line.values.filter((v) => v !== null && v !== undefined).length < 25, size: 5 },
        })),
      ],
    },
    [x, ...lines.map((line) => line.values)],
    box,
  );
  const last = lines.map((line) => {
    const known = line.values.filter((v) => v !== null && v !== undefined);
    return `${line.label}: ${known.length ? `from ${shown(0, known[0])} to ${shown(0, known.at(-1))}` : "nothing"}`;
  });
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `${title}; ${last.join("; ")}; plus and minus change the part that is shown, 0 shows all`);
  box.tabIndex = 0;
  box.addEventListener("keydown", (event) => {
    const { min, max } = chart.scales.x, by = { "+": -0.2, "-": 0.3 }[event.key] * (max - min);
    if (event.key === "0") chart.setScale("x", { min: x[0], max: x.at(-1) });
    else if (by) chart.setScale("x", { min: Math.max(x[0], min - by), max: Math.min(x.at(-1), max + by) });
  });
  new ResizeObserver(() => chart.setSize({ width: Math.max(240, box.clientWidth - 16), height: 200 })).observe(box);
  return chart;
}

function drawCurves() {
  const runs = REPORT.runs, into = document.getElementById("curve-panels");
  const columns = [...new Set(runs.flatMap((run) => Object.keys(run.curves.columns)))];
  if (!columns.length) {
    into.append(element("p", { className: "missing", textContent: "There are no curves." }));
    return;
  }
  const x = [...new Set(runs.flatMap((run) => Object.values(run.curves.columns).flatMap((of) => of.steps)))].sort((a, b) => a - b);
  const place = new Map(x.map((step, n) => [step, n]));
  const charts = [];
  for (const column of columns) {
    const lines = [];
    runs.forEach((run, n) => {
      if (!(column in run.curves.columns)) return;
      const values = new Array(x.length).fill(undefined); // undefined: not measured then; null: a gap
      const { steps, values: measured } = run.curves.columns[column];
      steps.forEach((step, row) => (values[place.get(step)] = measured[row]));
      lines.push({ label: runs.length > 1 ? run.name : column.replaceAll("_", " "), values, colour: COLOURS[n % COLOURS.length], run: n });
    });
    const title = runs.map((run) => run.curves.titles[column]).find(Boolean);
    charts.push([panel(into, title, x, lines), lines]);
  }
  const switches = document.getElementById("curve-runs");
  if (!switches) return;
  runs.forEach((run, n) => {
    const box = element("input", { type: "checkbox", checked: true });
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = COLOURS[n % COLOURS.length];
    switches.append(element("label", { className: "switch" }, box, swatch, run.name));
    box.addEventListener("change", () => {
      for (const [chart, lines] of charts)
        lines.forEach((line, k) => line.run === n && chart.setSeries(k + 1, { show: box.checked }));
    });
  });
}

function drawSpectra() {
  const into = document.getElementById("spectrum-panels");
  const lines = [], histograms = [];
  for (const run of REPORT.runs) {
    if (!run.curves.alignment) continue;
    const { steps, values } = run.curves.alignment;
    panel(into, `${run.name}: alignment of the predictor's eigenspace`, steps, [{ label: "alignment", values, colour: COLOURS[0] }]);
  }
  GALLERIES.forEach((gallery) => {
    gallery?.encoders.forEach((encoder, n) => {
      if (!encoder.spectrum.length) return;
      const label = GALLERIES.length > 1 ? `${gallery.run}: ${encoder.name}` : encoder.name;
      const colour = COLOURS[lines.length % COLOURS.length];
      lines.push({ label, colour, values: encoder.spectrum.map((v) => (v > 1e-8 ? v : null)) });
      const all = encoder.correlations.reduce((a, b) => a + b, 0);
      if (all) histograms.push({ label, colour, values: encoder.correlations.map((v) => v / all) });
    });
  });
  if (!lines.length) {
    into.append(element("p", { className: "missing", textContent: "The run kept no features." }));
    return;
  }
  const longest = Math.max(...lines.map((line) => line.values.length));
  for (const line of lines) line.values = [...line.values, ...new Array(longest - line.values.length).fill(null)];
  panel(into, "singular values, shares of the largest", Array.from({ length: longest }, (_, i) => i + 1), lines, { log: true, x_title: "number" });
  const bins = histograms[0]?.values.length ?? 0;
  if (bins)
    panel(into, "correlations of different features, share of the pairs", Array.from({ length: bins }, (_, i) => -1 + (2 * i + 1) / bins), histograms, { x_title: "correlation" });
}

drawCurves();
drawSpectra();
