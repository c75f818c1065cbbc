// The data of the page, unpacked: base64 to arrays, sheets of thumbnails to pictures that tiles are cut from.

const REPORT = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
// Okabe and Ito's colours, which the colour-blind can tell apart, on light and on dark ground.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f"];
const SHAPES = 5; // circle, square, triangle, diamond, cross: 40 groups that differ

function bytes(text) {
  const raw = atob(text), found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

function element(name, properties = {}, ...children) {
  const found = Object.assign(document.createElement(name), properties);
  found.append(...children); // text stays text, whatever it holds
  return found;
}

/** Images of a run: names, labels, thumbnails, and what each encoder makes of them. */
class Gallery {
  constructor(run, stored) {
    Object.assign(this, { run, names: stored.names, classes: stored.classes, side: stored.side });
    this.columns = stored.columns;
    this.count = stored.names.length;
    this.labels = new Int32Array(bytes(stored.labels).buffer);
    this.clusters = new Int16Array(bytes(stored.clusters).buffer);
    this.labelled = this.labels.some((label) => label >= 0);
    this.sheets = stored.sheets.map((sheet) => URL.createObjectURL(new Blob([bytes(sheet)], { type: "image/webp" })));
    this.encoders = stored.encoders.map((encoder) => ({
      ...encoder,
      neighbours: new Uint16Array(bytes(encoder.neighbours).buffer),
      maps: Object.fromEntries(
        Object.entries(encoder.maps).map(([name, map]) => [
          name,
          { axes: map.axes, points: new Float32Array(bytes(map.points).buffer) },
        ]),
      ),
    }));
    this.of = stored.of;
    this.noun = stored.noun;
    this.sounds = new Map(Object.entries(stored.sounds).map(([i, sound]) => [+i, sound]));
    this.queries = stored.queries;
    this.pairs = stored.pairs;
    this.found = this.names.map((name, i) => `${name} ${this.label(i)}`.toLowerCase());
  }

  label(i) {
    return this.labels[i] < 0 ? "" : this.classes[this.labels[i]];
  }

  title(i) {
    const cluster = `cluster ${this.clusters[i] + 1}`;
    return this.labels[i] < 0 ? cluster : `${this.label(i)}, ${cluster}`;
  }

  nearest(encoder, i) {
    return Array.from(encoder.neighbours.subarray(i * encoder.each, (i + 1) * encoder.each));
  }

  /** Play the sound of image i, if it was kept; what played before stops. Browsers allow it once the page was clicked. */
  play(i) {
    Gallery.playing?.pause();
    const sound = this.sounds.get(i);
    if (!sound) return;
    if (typeof sound === "string") {
      const content = bytes(sound), type = content[0] === 0x52 ? "audio/wav" : "audio/mpeg"; // R of RIFF
      this.sounds.set(i, new Audio(URL.createObjectURL(new Blob([content], { type }))));
    }
    Gallery.playing = this.sounds.get(i);
    Gallery.playing.currentTime = 0;
    Gallery.playing.play().catch(() => {});
  }

  /** The thumbnail of image i, `size` pixels wide. */
  tile(i, size) {
    const each = this.columns ** 2, place = i % each, scale = size / this.side;
    const across = Math.min(this.columns, this.count - (i - place));
    const tile = element("span", { className: "tile", role: "img" });
    tile.setAttribute("aria-label", `${this.names[i]} ${this.label(i)}`.trim());
    Object.assign(tile.style, {
      width: `${size}px`,
      height: `${size}px`,
      backgroundImage: `url(${this.sheets[Math.floor(i / each)]})`,
      backgroundSize: `${across * size}px auto`,
      backgroundPosition: `${-(place % this.columns) * this.side * scale}px ${-Math.floor(place / this.columns) * this.side * scale}px`,
    });
    return tile;
  }
}

const GALLERIES = REPORT.runs.map((run) => run.gallery && new Gallery(run.name, run.gallery));
