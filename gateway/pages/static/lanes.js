// Draws a lane for each voice: its loudness over time, with gaps hatched and notes as flags on the ruler above.

const NICE_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

/** A waveform in audiowaveform's format, version 1 or 2, binary or JSON: {rate, low, high}, values from -1 to 1. */
export function readPeaks(buffer) {
  if (new Uint8Array(buffer, 0, 1)[0] === 0x7b) return readJson(JSON.parse(new TextDecoder().decode(buffer)));
  const view = new DataView(buffer);
  const version = view.getInt32(0, true);
  const small = view.getUint32(4, true) & 1;
  const channels = version === 2 ? view.getInt32(20, true) : 1;
  const start = version === 2 ? 24 : 20;
  const values = small ? new Int8Array(buffer, start) : new Int16Array(buffer.slice(start));
  return fold(values, channels, small ? 128 : 32768, view.getInt32(8, true) / view.getInt32(12, true));
}

function readJson(file) {
  return fold(file.data, file.channels ?? 1, file.bits === 8 ? 128 : 32768, file.sample_rate / file.samples_per_pixel);
}

function fold(values, channels, scale, rate) {
  const count = Math.floor(values.length / (2 * channels));
  const low = new Float32Array(count);
  const high = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    for (let channel = 0; channel < channels; channel++) {
      const at = 2 * (i * channels + channel);
      low[i] = Math.min(low[i], values[at] / scale);
      high[i] = Math.max(high[i], values[at + 1] / scale);
    }
  }
  return { rate, low, high };
}

export function say(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${parts.join(":")}` : `${Number(parts[0])}:${parts[1]}`;
}

/** The lanes of a page. `view` is what they show: {from, to} in seconds. */
export class Lanes {
  #lanes = []; // {canvas, peaks}
  #ruler;
  #heads = [];
  #timeline;
  view;

  constructor(timeline, rows, ruler) {
    this.#timeline = timeline;
    this.view = { from: 0, to: timeline.duration_s };
    this.#ruler = document.createElement("canvas");
    this.#ruler.setAttribute("aria-hidden", "true");
    ruler.append(this.#ruler);
    ruler.hidden = false;
    for (const [user, row] of rows) {
      const wave = row.querySelector(".wave");
      wave.hidden = false;
      const head = document.createElement("i");
      head.className = "playhead";
      wave.append(head);
      this.#heads.push(head);
      const losses = timeline.lanes.find((lane) => lane.user === user)?.losses ?? [];
      this.#lanes.push({ user, wave, canvas: wave.querySelector("canvas"), peaks: null, losses, silent: false });
    }
    new ResizeObserver(() => this.draw()).observe(ruler);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Call `seek(seconds)` when somebody points at a moment. */
  onseek(seek) {
    for (const element of [this.#ruler, ...this.#lanes.map((lane) => lane.wave)]) {
      element.addEventListener("pointerdown", (event) => {
        const box = element.getBoundingClientRect();
        const share = (event.clientX - box.left) / box.width;
        seek(this.view.from + share * (this.view.to - this.view.from));
      });
    }
  }

  async load() {
    const urls = new Map(this.#timeline.lanes.map((lane) => [lane.user, lane.peaks]));
    await Promise.all(
      this.#lanes.map(async (lane) => {
        if (lane.peaks || !urls.get(lane.user)) return;
        const response = await fetch(urls.get(lane.user));
        if (response.ok) lane.peaks = readPeaks(await response.arrayBuffer());
        this.#drawLane(lane);
      }),
    );
  }

  hear(user, heard) {
    const lane = this.#lanes.find((other) => other.user === user);
    if (lane && lane.silent !== !heard) {
      lane.silent = !heard;
      this.#drawLane(lane);
    }
  }

  zoom(factor, around) {
    const whole = this.#timeline.duration_s;
    const span = Math.min(whole, Math.max(2, (this.view.to - this.view.from) * factor));
    const from = Math.min(Math.max(0, around - span / 2), whole - span);
    this.view = { from, to: from + span };
    this.draw();
  }

  /** Show where the music is, and follow it when it leaves what is seen. */
  point(seconds, following) {
    const { from, to } = this.view;
    if (following && (seconds < from || seconds >= to)) this.zoom(1, seconds + (to - from) * 0.45);
    const share = (seconds - this.view.from) / (this.view.to - this.view.from);
    for (const head of this.#heads) {
      head.hidden = share < 0 || share > 1;
      head.style.left = `${share * 100}%`;
    }
  }

  draw() {
    this.#drawRuler();
    for (const lane of this.#lanes) this.#drawLane(lane);
  }

  #drawLane(lane) {
    const pen = prepare(lane.canvas);
    if (!pen) return;
    const { context, width, height } = pen;
    const middle = height / 2;
    this.#hatch(context, width, height);
    context.globalAlpha = lane.silent ? 0.25 : 1;
    context.fillStyle = getComputedStyle(lane.canvas).color;
    context.fillRect(0, middle - 0.5, width, 1);
    if (lane.peaks) {
      const { rate, low, high } = lane.peaks;
      const step = ((this.view.to - this.view.from) * rate) / width;
      for (let x = 0; x < width; x++) {
        const first = Math.floor(this.view.from * rate + x * step);
        const last = Math.max(first + 1, Math.floor(this.view.from * rate + (x + 1) * step));
        let bottom = 0;
        let top = 0;
        for (let i = first; i < last && i < low.length; i++) {
          if (low[i] < bottom) bottom = low[i];
          if (high[i] > top) top = high[i];
        }
        const up = Math.sqrt(top) * middle; // quiet voices are voices, too
        const down = Math.sqrt(-bottom) * middle;
        if (up + down > 0) context.fillRect(x, middle - up, 1, Math.max(1, up + down));
      }
    }
    context.globalAlpha = 1;
    this.#drawLosses(context, lane.losses, width, height);
    this.#drawNotes(context, width, height);
  }

  /** Bars from below where packets never came: the higher, the more of them. */
  #drawLosses(context, losses, width, height) {
    const span = this.view.to - this.view.from;
    context.fillStyle = getComputedStyle(this.#ruler).getPropertyValue("--live");
    for (const loss of losses) {
      const start = ((loss.from_s - this.view.from) / span) * width;
      const stop = Math.max(start + 2, ((loss.to_s - this.view.from) / span) * width);
      const share = Math.min(1, (loss.packets * 0.02) / (loss.to_s - loss.from_s));
      const high = 3 + share * (height / 2);
      if (stop >= 0 && start <= width) context.fillRect(start, height - high, stop - start, high);
    }
  }

  /** A thin line through a lane at every note; its flag is on the ruler. */
  #drawNotes(context, width, height) {
    const span = this.view.to - this.view.from;
    context.fillStyle = getComputedStyle(this.#ruler).getPropertyValue("--flag");
    context.globalAlpha = 0.55;
    for (const note of this.#timeline.notes) {
      const x = ((note.at_s - this.view.from) / span) * width;
      if (x >= 0 && x <= width) context.fillRect(x, 0, 1, height);
    }
    context.globalAlpha = 1;
  }

  #drawRuler() {
    const pen = prepare(this.#ruler);
    if (!pen) return;
    const { context, width, height } = pen;
    const span = this.view.to - this.view.from;
    const step = NICE_S.find((nice) => (nice / span) * width > 70) ?? 7200;
    const style = getComputedStyle(this.#ruler);
    this.#hatch(context, width, height);
    context.fillStyle = style.color;
    context.font = "12px system-ui, sans-serif";
    for (let at = Math.ceil(this.view.from / step) * step; at <= this.view.to; at += step) {
      const x = ((at - this.view.from) / span) * width;
      context.fillRect(x, height - 6, 1, 6);
      if (x + 40 < width) context.fillText(say(at), x + 3, height - 3);
    }
    context.fillStyle = style.getPropertyValue("--flag");
    for (const note of this.#timeline.notes) {
      const x = ((note.at_s - this.view.from) / span) * width;
      if (x < 0 || x > width) continue;
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x + 9, 4);
      context.lineTo(x, 8);
      context.fill();
      context.fillRect(x, 0, 1.5, height);
    }
  }

  #hatch(context, width, height) {
    const span = this.view.to - this.view.from;
    context.strokeStyle = getComputedStyle(this.#ruler).getPropertyValue("--gap");
    for (const gap of this.#timeline.gaps) {
      const start = ((gap.from_s - this.view.from) / span) * width;
      const stop = Math.max(start + 2, ((gap.to_s - this.view.from) / span) * width);
      if (stop < 0 || start > width) continue;
      context.save();
      context.beginPath();
      context.rect(start, 0, stop - start, height);
      context.clip();
      context.beginPath();
      for (let x = start - height; x < stop; x += 6) {
        context.moveTo(x, height);
        context.lineTo(x + height, 0);
      }
      context.stroke();
      context.restore();
    }
  }
}

function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}
