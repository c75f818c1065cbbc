// Points in two or three dimensions that can be turned, drawn by three.js when something has changed.

const VERTEX = `
attribute vec3 colour; attribute float shape; attribute float strength; uniform float size; uniform vec3 ground; varying vec3 ink; varying float form;
void main() {
  ink = mix(ground, colour, min(strength, 1.0)); form = shape; // mixed here: blending costs a quarter of a frame
  vec4 place = modelViewMatrix * vec4(position, 1.0);
  gl_Position = projectionMatrix * place;
  if (strength < 0.2) gl_Position.z += 0.02 * gl_Position.w; // what is sought lies in front of what is not
  gl_PointSize = size * (strength > 1.5 ? 2.2 : 1.0) * clamp(3.0 / -place.z, 0.5, 3.0);
}`;
const FRAGMENT = `
precision mediump float; varying vec3 ink; varying float form;
void main() {
  vec2 at = 2.0 * gl_PointCoord - 1.0; bool outside;
  if (form < 0.5) outside = dot(at, at) > 1.0;
  else if (form < 1.5) outside = max(abs(at.x), abs(at.y)) > 0.8;
  else if (form < 2.5) outside = at.y > 0.8 || at.y < 2.0 * abs(at.x) - 1.0;
  else if (form < 3.5) outside = abs(at.x) + abs(at.y) > 1.0;
  else outside = min(abs(at.x), abs(at.y)) > 0.3;
  if (outside) discard;
  gl_FragColor = vec4(ink, 1.0);
}`;
const NEAR = 12; // pixels from the pointer within which a point is meant

class Cloud {
  /** pointed(number or null, event) and chosen(number) tell of points by their number. Throws where there is no WebGL. */
  constructor(pane, title, { pointed, chosen }) {
    this.canvas = element("canvas", { tabIndex: 0 });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `${title}: arrow keys turn it, plus and minus bring it nearer; the field "find" lists images by name`);
    pane.append(this.canvas);
    this.renderer = new THREE.WebGLRenderer({ canvas: this.canvas, antialias: false });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 1.5));
    this.camera = new THREE.PerspectiveCamera(45, 1, 0.05, 100);
    this.scene = new THREE.Scene();
    this.material = new THREE.ShaderMaterial({ vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms: { size: { value: 8 }, ground: { value: new THREE.Vector3() } } });
    this.controls = new THREE.OrbitControls(this.camera, this.canvas);
    this.controls.addEventListener("change", () => this.draw());
    this.frames = 0;
    this.controls.enableZoom = false; // the wheel belongs to the page until the cloud is clicked or reached by a key
    this.canvas.addEventListener("focus", () => (this.controls.enableZoom = true));
    this.canvas.addEventListener("blur", () => (this.controls.enableZoom = false));
    this._listen(pointed, chosen);
    new ResizeObserver(() => this._resize()).observe(this.canvas);
  }

  /** places: N x axes numbers around 0; colours: N x 3; shapes: N. The view stays as it is unless the axes change. */
  show(places, axes, colours, shapes) {
    const count = shapes.length, flat = new Float32Array(3 * count);
    for (let i = 0; i < count; i++) for (let k = 0; k < axes; k++) flat[3 * i + k] = places[axes * i + k];
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(flat, 3));
    geometry.setAttribute("colour", new THREE.BufferAttribute(colours, 3));
    geometry.setAttribute("shape", new THREE.BufferAttribute(shapes, 1));
    geometry.setAttribute("strength", new THREE.BufferAttribute(new Float32Array(count).fill(1), 1));
    this.points?.geometry.dispose();
    this.points && this.scene.remove(this.points);
    this.points = new THREE.Points(geometry, this.material);
    this.points.frustumCulled = false;
    this.scene.add(this.points);
    this.flat = flat;
    const ground = inkOf("--card").match(/\w\w/g).map((part) => parseInt(part, 16) / 255);
    this.material.uniforms.ground.value.set(...ground);
    this.renderer.setClearColor(new THREE.Color().setRGB(...ground, THREE.SRGBColorSpace));
    this.material.uniforms.size.value = (count > 5000 ? 5 : count > 1000 ? 7 : 10) * this.renderer.getPixelRatio();
    if (axes !== this.axes) this.home(axes);
    this.draw();
  }

  home(axes) {
    this.axes = axes;
    const turns = axes > 2;
    this.controls.enableRotate = turns;
    this.controls.mouseButtons.LEFT = turns ? THREE.MOUSE.ROTATE : THREE.MOUSE.PAN;
    this.controls.touches.ONE = turns ? THREE.TOUCH.ROTATE : THREE.TOUCH.PAN;
    this.controls.target.set(0, 0, 0);
    this.camera.position.set(...(turns ? [1.3, 0.9, 2] : [0, 0, 2.6]));
    this.controls.update();
  }

  /** strengths: of each point, below 0.2 faint, above 1.5 large; null: all alike. */
  emphasise(strengths) {
    const attribute = this.points.geometry.getAttribute("strength");
    if (strengths) attribute.array.set(strengths);
    else attribute.array.fill(1);
    attribute.needsUpdate = true;
    this.strengths = strengths;
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this.renderer.render(this.scene, this.camera);
      this.frames++;
    });
  }

  /** The number of the point at a place on the screen, the nearest to the eye of those that are close; or null. */
  at(x, y) {
    const box = this.canvas.getBoundingClientRect();
    const across = box.width / 2, down = box.height / 2, seekX = x - box.left - across, seekY = down - (y - box.top);
    this.camera.updateMatrixWorld();
    const m = new THREE.Matrix4().multiplyMatrices(this.camera.projectionMatrix, this.camera.matrixWorldInverse).elements;
    let best = null, least = Infinity;
    for (let i = 0, p = this.flat; i < p.length; i += 3) {
      const w = m[3] * p[i] + m[7] * p[i + 1] + m[11] * p[i + 2] + m[15];
      if (w <= 0) continue;
      const dx = (across * (m[0] * p[i] + m[4] * p[i + 1] + m[8] * p[i + 2] + m[12])) / w - seekX;
      const dy = (down * (m[1] * p[i] + m[5] * p[i + 1] + m[9] * p[i + 2] + m[13])) / w - seekY;
      const apart = dx * dx + dy * dy;
      if (apart > NEAR * NEAR || (this.strengths && this.strengths[i / 3] < 0.2)) continue;
      const cost = apart + 20 * w; // of two that are about as close, the one in front
      if (cost < least) [least, best] = [cost, i / 3];
    }
    return best;
  }

  /** Where a point lies on the screen, in CSS pixels. */
  where(i) {
    const box = this.canvas.getBoundingClientRect();
    const place = new THREE.Vector3(...this.flat.subarray(3 * i, 3 * i + 3)).project(this.camera);
    return { x: box.left + (box.width * (place.x + 1)) / 2, y: box.top + (box.height * (1 - place.y)) / 2 };
  }

  turn(left, up) {
    const target = this.controls.target, offset = this.camera.position.clone().sub(target);
    if (this.axes > 2) {
      const ball = new THREE.Spherical().setFromVector3(offset);
      ball.theta -= left;
      ball.phi = Math.min(Math.PI - 0.05, Math.max(0.05, ball.phi - up));
      this.camera.position.setFromSpherical(ball).add(target);
    } else {
      const by = new THREE.Vector3(-left, up, 0).multiplyScalar(offset.length() / 2);
      this.camera.position.add(by);
      target.add(by);
    }
    this.controls.update();
    this.draw();
  }

  nearer(factor) {
    this.camera.position.sub(this.controls.target).multiplyScalar(factor).add(this.controls.target);
    this.controls.update();
    this.draw();
  }

  _listen(pointed, chosen) {
    const canvas = this.canvas;
    let down = null;
    canvas.addEventListener("pointermove", (event) => !event.buttons && pointed(this.at(event.clientX, event.clientY), event));
    canvas.addEventListener("pointerleave", (event) => pointed(null, event));
    canvas.addEventListener("pointerdown", (event) => {
      down = [event.clientX, event.clientY];
      canvas.focus({ preventScroll: true });
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!down || Math.hypot(event.clientX - down[0], event.clientY - down[1]) > 5) return;
      const number = this.at(event.clientX, event.clientY);
      if (number !== null) chosen(number);
    });
    const keys = {
      ArrowLeft: () => this.turn(-0.12, 0), ArrowRight: () => this.turn(0.12, 0),
      ArrowUp: () => this.turn(0, 0.12), ArrowDown: () => this.turn(0, -0.12),
      "+": () => this.nearer(0.88), "-": () => this.nearer(1.14), 0: () => this.home(this.axes),
    };
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
      keys[event.key]();
      event.preventDefault();
    });
  }

  _resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.draw();
  }
}
