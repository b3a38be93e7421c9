// A scatter plot on a canvas: hover, click, lasso, zoom. It draws points; what they mean is the caller's business.

const REACH = 12; // px within which a point is hit
const SIZE = 4;

export class Scatter {
  /** `on.hover(index or -1, x, y)`, `on.pick(index)` and `on.lasso(indices)` are called; colors come from `color(index)`. */
  constructor(canvas, on, color) {
    this.canvas = canvas;
    this.on = on;
    this.color = color;
    this.points = new Float32Array();
    this.marked = new Set();
    this.rings = [];
    this.view = { x: 0, y: 0, scale: 1 };
    this.path = null;
    this.dots = new Map(); // color, size → its picture: quicker to draw than an arc
    new ResizeObserver(() => this.draw()).observe(canvas); // at once, as a resized canvas is empty
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("pointerleave", () => this.on.hover(-1));
    canvas.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
  }

  /** Show these points (x, y, x, y …), scaled to fill the canvas; from the old ones in a short animation. */
  show(points) {
    const before = this.points.length === points.length ? this.points : null;
    const target = fitted(points);
    this.view = { x: 0, y: 0, scale: 1 };
    if (!before || matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.points = target;
      this.schedule();
      return;
    }
    const began = performance.now();
    const step = (now) => {
      const share = Math.min((now - began) / 600, 1),
        eased = 1 - (1 - share) ** 3;
      this.points = target.map((value, at) => before[at] + (value - before[at]) * eased);
      this.schedule(); // with what else changed: one drawing a frame
      if (share < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  mark(indices) {
    this.marked = new Set(indices);
    this.schedule();
  }

  /** Draw a ring around each of these points. */
  ring(indices) {
    this.rings = indices;
    this.schedule();
  }

  /** Draw before the next frame, once. */
  schedule() {
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw(ratio = devicePixelRatio || 1) {
    this.frame = null;
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    const places = this.places();
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    for (const only of this.marked.size ? [false, true] : [false]) {
      const size = only ? SIZE * 1.6 : SIZE;
      context.globalAlpha = this.marked.size && !only ? 0.25 : 0.85;
      for (let at = 0; at < places.length / 2; at++) {
        if (only !== this.marked.has(at)) continue;
        const x = places[2 * at] - size,
          y = places[2 * at + 1] - size;
        context.drawImage(this.dot(this.color(at), size * ratio), x, y, 2 * size, 2 * size);
      }
    }
    context.globalAlpha = 1;
    if (this.path || this.rings.length) context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2;
    for (const at of this.rings) {
      context.beginPath();
      context.arc(places[2 * at], places[2 * at + 1], 2.2 * SIZE, 0, 7);
      context.stroke();
    }
    context.lineWidth = 1;
    if (this.path) {
      context.setLineDash([4, 4]);
      context.beginPath();
      this.path.forEach(([x, y]) => context.lineTo(x, y));
      context.stroke();
      context.setLineDash([]);
    }
  }

  /** Return a picture of a dot. */
  dot(color, radius) {
    const name = `${color} ${radius}`;
    if (!this.dots.has(name)) {
      const picture = new OffscreenCanvas(Math.ceil(2 * radius), Math.ceil(2 * radius));
      const context = picture.getContext("2d");
      context.fillStyle = color;
      context.arc(picture.width / 2, picture.height / 2, picture.width / 2, 0, 7);
      context.fill();
      this.dots.set(name, picture.transferToImageBitmap());
    }
    return this.dots.get(name);
  }

  place(at) {
    return this.places().subarray(2 * at, 2 * at + 2);
  }

  /** Return the points as they are on the canvas, x and y of each in turn. */
  places() {
    const { clientWidth: width, clientHeight: height } = this.canvas,
      { x, y, scale } = this.view;
    const edge = 24;
    return this.points.map((value, at) =>
      at % 2 ? (edge + value * (height - 2 * edge)) * scale + y : (edge + value * (width - 2 * edge)) * scale + x,
    );
  }

  nearest(x, y) {
    const places = this.places();
    let found = -1,
      least = REACH ** 2;
    for (let at = 0; at < places.length / 2; at++) {
      const distance = (places[2 * at] - x) ** 2 + (places[2 * at + 1] - y) ** 2;
      if (distance < least) {
        found = at;
        least = distance;
      }
    }
    return found;
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.path = [[event.offsetX, event.offsetY]];
  }

  move(event) {
    if (this.path) {
      this.path.push([event.offsetX, event.offsetY]);
      this.schedule();
      return;
    }
    this.on.hover(this.nearest(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
  }

  end(event) {
    const path = this.path ?? [];
    this.path = null;
    const width = Math.max(...path.map(([x]) => x)) - Math.min(...path.map(([x]) => x));
    if (path.length < 8 || width < 8) this.on.pick(this.nearest(event.offsetX, event.offsetY));
    else this.on.lasso(this.inside(path));
    this.schedule();
  }

  /** Return the points inside a closed path. */
  inside(path) {
    const places = this.places();
    return [...Array(places.length / 2).keys()].filter((at) => isInside(places.subarray(2 * at, 2 * at + 2), path));
  }

  zoom(event) {
    event.preventDefault();
    const before = this.view,
      scale = Math.min(Math.max(before.scale * 1.0015 ** -event.deltaY, 1), 40),
      by = scale / before.scale;
    this.view =
      scale === 1
        ? { x: 0, y: 0, scale }
        : {
            scale,
            x: event.offsetX - (event.offsetX - before.x) * by,
            y: event.offsetY - (event.offsetY - before.y) * by,
          };
    this.schedule();
  }
}

/** Return the points scaled to [0, 1]. */
function fitted(points) {
  const low = [Infinity, Infinity],
    high = [-Infinity, -Infinity];
  points.forEach((value, at) => {
    low[at % 2] = Math.min(low[at % 2], value);
    high[at % 2] = Math.max(high[at % 2], value);
  });
  return points.map((value, at) => (value - low[at % 2]) / (high[at % 2] - low[at % 2] || 1));
}

/** Return whether a point is inside a closed path, by the crossings of a ray. */
function isInside([x, y], path) {
  let inside = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [xi, yi] = path[i],
      [xj, yj] = path[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}
