// Queries and what lies nearest to them, by every encoder; pairs of classes that are taken for each other.

const TILE = 72;

/** An image with its name. kind: "query", "right", "wrong" or none. */
function card(gallery, i, kind, chosen) {
  const mark = { right: "✓ ", wrong: "✗ " }[kind] ?? "";
  const words = { right: "same label as the query: ", wrong: "another label than the query: " }[kind] ?? "";
  const text = gallery.labels[i] < 0 ? gallery.names[i] : gallery.label(i);
  const label = element("span", {}, element("span", { className: "mark", textContent: mark }), element("bdi", { textContent: text }));
  const found = element("button", { type: "button", className: `card ${kind}`, title: gallery.names[i] }, gallery.tile(i, TILE), element("br"), label);
  found.setAttribute("aria-label", `${words}${gallery.names[i]} ${gallery.label(i)}`.trim());
  found.addEventListener("click", () => chosen(i));
  return found;
}

/** A query and a row of neighbours for each encoder. */
function neighbourBlock(gallery, query, chosen) {
  const block = element("div", { className: "query-block" });
  block.append(element("div", { className: "row" }, element("h4", { textContent: "query" }), card(gallery, query, "query", chosen), element("bdi", { className: "hint", textContent: `${gallery.names[query]} ${gallery.title(query)}` })));
  for (const encoder of gallery.encoders) {
    const row = element("div", { className: "row" }, element("h4", { textContent: encoder.name }));
    for (const i of gallery.nearest(encoder, query)) {
      const known = gallery.labels[query] >= 0 && gallery.labels[i] >= 0;
      row.append(card(gallery, i, known ? (gallery.labels[i] === gallery.labels[query] ? "right" : "wrong") : "", chosen));
    }
    block.append(row);
  }
  return block;
}

function drawNeighbours(explorer) {
  const into = document.getElementById("neighbours-app");
  if (!GALLERIES.some(Boolean)) {
    into.append(element("p", { className: "missing", textContent: "There is nothing to show." }));
    return;
  }
  into.append(element("p", { className: "hint", textContent: `Each row holds the ten ${GALLERIES.find(Boolean).noun} of the explorer that are nearest to the query by the cosine of the features; ✓ and a solid frame: the same label as the query; ✗ and a dashed frame: another.` }));
  for (const gallery of GALLERIES.filter(Boolean)) {
    if (GALLERIES.length > 1) into.append(element("h3", { textContent: gallery.run }));
    const choose = (i) => {
      explorer.choose(gallery, i);
      document.getElementById("ex-chosen").scrollIntoView({ block: "center" });
    };
    for (const query of gallery.queries) into.append(neighbourBlock(gallery, query, choose));
    if (!gallery.pairs.length) continue;
    into.append(element("h3", { textContent: "Classes that are confused most" }));
    const pairs = element("div", { className: "pairs" });
    for (const pair of gallery.pairs) {
      const words = element("p", {}, element("bdi", { textContent: pair.true }), " taken for ", element("bdi", { textContent: pair.taken }), `: ${pair.count} of ${pair.of}`);
      pairs.append(element("div", {}, words, element("div", { className: "row" }, ...pair.examples.map((i) => card(gallery, i, "", choose)))));
    }
    into.append(pairs);
  }
}

const EXPLORER = new Explorer();
if (!EXPLORER.galleries.length) document.getElementById("explorer").append(element("p", { className: "missing", textContent: "There is nothing to explore." }));
drawNeighbours(EXPLORER);
document.documentElement.dataset.ready = "true";
