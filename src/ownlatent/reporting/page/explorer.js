// The images as encoders see them: two clouds side by side, what a point is, and what lies near it.

const MOST_MATCHES = 24;

class Explorer {
  constructor() {
    this.galleries = GALLERIES.filter(Boolean);
    if (!this.galleries.length) return;
    for (const name of ["run", "map", "colour", "find", "found", "panes", "legend", "matches", "chosen", "hear", "sound", "about"])
      this[name] = document.getElementById(name === "about" ? "explorer-about" : `ex-${name}`);
    document.getElementById("explorer-app").hidden = false;
    this.tip = document.getElementById("tip");
    this.galleries.forEach((gallery, n) => this.run.append(element("option", { value: n, textContent: gallery.run })));
    this.run.parentElement.hidden = this.galleries.length < 2;
    this.run.addEventListener("change", () => this.open());
    this.map.addEventListener("change", () => this.redraw());
    this.colour.addEventListener("change", () => this.redraw());
    this.find.addEventListener("input", () => {
      this.only = null;
      this.filter();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.open();
  }

  /** Show the images of the run that is selected. */
  open() {
    this.gallery = this.galleries[+this.run.value || 0];
    this.selected = this.only = null;
    const { encoders, labelled } = this.gallery;
    this._options(this.map, [...new Set(encoders.flatMap((e) => Object.keys(e.maps).flatMap((m) => (e.maps[m].axes > 2 ? [`${m}, 3-D`, `${m}, 2-D`] : [`${m}, ${e.maps[m].axes}-D`]))))]);
    this._options(this.colour, [...(labelled ? ["label"] : []), "cluster", ...(this.galleries.length > 1 ? ["run"] : [])]);
    this.about.textContent =
      `${this.gallery.of}. Drag to turn, click and scroll to come nearer; point at a dot to see its ${this.gallery.sounds.size ? "spectrogram and, once the page was clicked, hear its sound" : "image"}, click it for its nearest neighbours.`;
    this.hear.hidden = !this.gallery.sounds.size;
    if (!this.clouds) this._panes();
    this.clouds.forEach((cloud, n) => {
      this._options(cloud.select, encoders.map((e) => e.name));
      cloud.select.value = encoders[Math.min(n, encoders.length - 1)].name;
    });
    this.clouds[1] && (this.clouds[1].pane.hidden = encoders.length < 2);
    this.chosen.replaceChildren();
    this.redraw();
  }

  _panes() {
    this.clouds = [];
    const most = Math.max(...this.galleries.map((gallery) => gallery.encoders.length));
    for (const title of ["First cloud", "Second cloud"].slice(0, most)) {
      const select = element("select", { ariaLabel: `${title}: encoder` });
      const facts = element("small");
      const pane = element("div", { className: "pane" }, element("h3", {}, select, facts));
      select.style.pointerEvents = "auto";
      this.panes.append(pane);
      try {
        const cloud = new Cloud(pane, title, {
          pointed: (number, event) => this.point(cloud, number, event),
          chosen: (number) => this.choose(...cloud.items[number]),
        });
        Object.assign(cloud, { select, facts, pane });
        select.addEventListener("change", () => this.redraw());
        this.clouds.push(cloud);
      } catch (error) {
        pane.replaceChildren(element("p", { className: "missing", textContent: `This browser draws no WebGL (${error.message}): embedding.png in the run folder shows the map.` }));
        break;
      }
    }
  }

  _options(select, names) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })));
    if (names.includes(before)) select.value = before;
  }

  /** Draw the points of every pane again. */
  redraw() {
    const [name, axes] = this.map.value.split(", "), by = this.colour.value;
    for (const cloud of this.clouds) {
      const shown = by === "run" ? this.galleries : [this.gallery];
      cloud.items = [];
      const places = [], wanted = parseInt(axes);
      let facts = "";
      for (const gallery of shown) {
        const encoder = gallery.encoders.find((e) => e.name === cloud.select.value) ?? gallery.encoders[0];
        const map = encoder.maps[name] ?? encoder.maps.PCA;
        for (let i = 0; i < gallery.count; i++) {
          cloud.items.push([gallery, i]);
          for (let k = 0; k < wanted; k++) places.push(k < map.axes ? map.points[map.axes * i + k] : 0);
        }
        cloud.encoder = encoder;
        const share = encoder.variance.slice(0, wanted).reduce((a, b) => a + b, 0);
        facts = encoder.maps[name] ? name : "PCA";
        if (facts === "PCA") facts += `, ${Math.round(100 * share)} % of the variance`;
      }
      cloud.facts.textContent = shown.length > 1 ? "each run in axes of its own: distances between runs mean nothing" : facts;
      const groups = cloud.items.map(([gallery, i]) => this._group(gallery, i, by));
      const colours = new Float32Array(3 * groups.length), shapes = new Float32Array(groups.length);
      groups.forEach((group, i) => {
        colours.set(colourOf(group), 3 * i);
        shapes[i] = group < 0 ? 0 : group % SHAPES;
      });
      cloud.show(new Float32Array(places), wanted, colours, shapes);
    }
    this.only = null;
    this._legend(by);
    this.filter();
  }

  _group(gallery, i, by) {
    return by === "label" ? gallery.labels[i] : by === "cluster" ? gallery.clusters[i] : GALLERIES.indexOf(gallery);
  }

  _legend(by) {
    const names = by === "label" ? this.gallery.classes : by === "run" ? GALLERIES.map((g) => g?.run ?? "") : Array.from({ length: Math.max(...this.gallery.clusters) + 1 }, (_, i) => `cluster ${i + 1}`);
    this.legend.replaceChildren(
      ...names.map((name, group) => {
        const button = element("button", { type: "button", title: "show only these" }, sign(group), name);
        button.addEventListener("click", () => {
          this.only = this.only?.group === group ? null : { by, group };
          this.find.value = "";
          this.filter();
        });
        return button;
      }),
    );
  }

  /** Make faint what does not match the field, and list what does. */
  filter() {
    const text = this.find.value.trim().toLowerCase();
    const sought = text || this.only;
    const fits = (gallery, i) => (this.only ? this._group(gallery, i, this.only.by) === this.only.group : gallery.found[i].includes(text));
    for (const cloud of this.clouds)
      cloud.emphasise(sought || this.selected ? Float32Array.from(cloud.items, ([gallery, i]) => this._strength(cloud, gallery, i, !sought || fits(gallery, i))) : null);
    const matches = sought ? Array.from(this.gallery.names.keys()).filter((i) => fits(this.gallery, i)) : [];
    this.found.textContent = sought ? `${matches.length} of ${this.gallery.count}` : "";
    this.matches.replaceChildren(...matches.slice(0, MOST_MATCHES).map((i) => card(this.gallery, i, "", () => this.choose(this.gallery, i))));
  }

  _strength(cloud, gallery, i, fits) {
    if (this.selected && this.selected.gallery === gallery) {
      if (this.selected.i === i) return 3;
      if (gallery.nearest(cloud.encoder, this.selected.i).includes(i)) return 2;
    }
    return fits ? 1 : 0.1;
  }

  point(cloud, number, event) {
    this.tip.hidden = number === null;
    clearTimeout(this.soon);
    if (number === null) {
      this.heard = null;
      return;
    }
    const [gallery, i] = cloud.items[number];
    if (this.sound.checked && this.heard !== cloud.items[number]) {
      this.heard = cloud.items[number];
      this.soon = setTimeout(() => gallery.play(i), 80); // not of every dot on the way
    }
    const lines = [gallery.names[i], gallery.title(i), ...(this.galleries.length > 1 ? [gallery.run] : [])];
    this.tip.replaceChildren(gallery.tile(i, 128), ...lines.map((line) => element("div", {}, element("bdi", { textContent: line }))));
    const right = event.clientX + 280 > innerWidth, low = event.clientY + 210 > innerHeight;
    this.tip.style.left = `${event.clientX + (right ? -220 : 16)}px`;
    this.tip.style.top = `${event.clientY + (low ? -200 : 16)}px`;
  }

  /** Show an image, and what each encoder takes for its nearest. */
  choose(gallery, i) {
    if (gallery !== this.gallery) {
      this.run.value = this.galleries.indexOf(gallery);
      this.open();
    }
    this.selected = { gallery, i };
    if (this.sound.checked) gallery.play(i);
    this.filter();
    const close = element("button", { type: "button", textContent: "close" });
    close.addEventListener("click", () => {
      this.selected = null;
      this.chosen.replaceChildren();
      this.filter();
      this.find.focus({ preventScroll: true });
    });
    this.chosen.replaceChildren(neighbourBlock(gallery, i, (other) => this.choose(gallery, other)), close);
    this.chosen.focus({ preventScroll: true }); // the button that was pressed may be gone
  }
}

function colourOf(group) {
  const text = group < 0 ? "#999999" : COLOURS[group % COLOURS.length];
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16) / 255);
}

/** The colour and shape of a group, for the legend. */
function sign(group) {
  const svg = document.createElementNS(SVG, "svg"), path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "-1 -1 2 2");
  svg.setAttribute("aria-hidden", "true");
  const forms = ["M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0", "M-.8-.8h1.6v1.6h-1.6z", "M0-1L.9.8H-.9z", "M0-1L1 0 0 1-1 0z", "M-1-.3h.7v-.7h.6v.7h.7v.6h-.7v.7h-.6v-.7h-.7z"];
  path.setAttribute("d", forms[group % SHAPES]);
  path.setAttribute("fill", COLOURS[group % COLOURS.length]);
  svg.append(path);
  return svg;
}
