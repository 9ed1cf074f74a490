// The drawing area: strokes by pointer or keyboard, in white on black as in MNIST.

const WIDTH = 20; // of the pen, of 280 pixels

export class Pad {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {number} size Width and height of the model's images in pixels.
   * @param {() => void} changed Called after each stroke.
   */
  constructor(canvas, size, changed) {
    this.canvas = canvas;
    this.size = size;
    this.changed = changed;
    this.pen = { x: 140, y: 140, down: false };
    this.ink = document.createElement("canvas"); // the drawing without the mark of the pen
    this.ink.width = canvas.width;
    this.ink.height = canvas.height;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => this.lift());
    }
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.show());
    canvas.addEventListener("blur", () => this.show());
  }

  clear() {
    const context = this.ink.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.ink.width, this.ink.height);
    this.last = null;
    this.pen.down = false;
    this.isEmpty = true;
    this.show();
  }

  position(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.keyboard = false;
    this.last = this.position(event);
    this.stroke(this.last);
  }

  move(event) {
    if (this.last) this.stroke(this.position(event));
  }

  lift() {
    if (this.last) this.changed();
    this.last = null;
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
      this.changed();
    } else if (event.key === " ") {
      this.pen.down = !this.pen.down;
      this.last = this.pen.down ? { ...this.pen } : null;
      if (this.pen.down) this.stroke(this.last);
      else this.changed();
    } else if (event.key in step) {
      const [x, y] = step[event.key];
      const limit = (value) => Math.min(this.canvas.width - 10, Math.max(10, value));
      this.pen.x = limit(this.pen.x + 10 * x);
      this.pen.y = limit(this.pen.y + 10 * y);
      if (this.pen.down) this.stroke({ ...this.pen });
    } else {
      return;
    }
    this.keyboard = true;
    event.preventDefault();
    this.show();
  }

  stroke(to) {
    const context = this.ink.getContext("2d");
    context.strokeStyle = "#fff";
    context.lineWidth = WIDTH;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(this.last.x, this.last.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    this.last = to;
    this.isEmpty = false;
    this.show();
  }

  show() {
    const context = this.canvas.getContext("2d");
    context.drawImage(this.ink, 0, 0);
    if (this.keyboard && document.activeElement === this.canvas) {
      context.strokeStyle = this.pen.down ? "#5fb0ff" : "#9aa4ae";
      context.lineWidth = 3;
      context.beginPath();
      context.arc(this.pen.x, this.pen.y, 14, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  /** Return the drawing as a canvas of the model's size, centered and scaled as MNIST's digits. */
  image() {
    const { width, height } = this.ink;
    const pixels = this.ink.getContext("2d").getImageData(0, 0, width, height).data;
    let [left, top, right, bottom] = [width, height, 0, 0];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (pixels[4 * (y * width + x)] > 64) {
          [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
          [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
        }
      }
    }
    // Digits fill 20 of MNIST's 28 pixels, and the full 8 × 8 images of scikit-learn's digits.
    const frame = this.size >= 20 ? 20 / 28 : 1;
    const scale = (frame * this.size) / Math.max(right - left, bottom - top, 1);
    const result = document.createElement("canvas");
    result.width = result.height = this.size;
    const context = result.getContext("2d");
    context.fillRect(0, 0, this.size, this.size);
    context.imageSmoothingQuality = "high";
    context.translate(this.size / 2, this.size / 2);
    context.scale(scale, scale);
    context.drawImage(this.ink, -(left + right) / 2, -(top + bottom) / 2);
    return result;
  }
}
