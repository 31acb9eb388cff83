// Plays the speakers' Ogg Opus files side by side, in step to the sample, and fetches no more than is heard soon.
//
// A file's pages (RFC 3533) carry the time at their end. A moment is found by a few range requests; the pages around
// it, numbered anew from zero behind the file's two header pages, are a small file of their own, which every browser
// decodes. What comes before the moment warms the decoder up and is cut off.

const RATE = 48000;
const PIECE_S = 5; // decoded: 2 MB a voice
const AHEAD_S = 8;
const WARM_TICKS = 3840; // 80 ms: RFC 7845 §4.6
const PROBE_BYTES = 24 * 1024;
const READ_BYTES = 96 * 1024;
const START_DELAY_S = 0.06;

const CRC = new Uint32Array(256).map((_, value) => {
  let crc = value << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc >>> 0;
});

function checksum(bytes) {
  let crc = 0;
  for (const byte of bytes) crc = ((crc << 8) ^ CRC[((crc >>> 24) ^ byte) & 255]) >>> 0;
  return crc;
}

/** Every whole page in some bytes: where it stands, how long it is, and the time at its end in ticks of 1/48000 s. */
export function findPages(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pages = [];
  let at = 0;
  while (at + 27 <= bytes.length) {
    const segments = bytes[at + 26];
    const table = at + 27 + segments;
    if (view.getUint32(at) !== 0x4f676753 || bytes[at + 4] !== 0) {
      if (pages.length) break; // not where the page before said: this is no Ogg
      at += 1;
      continue;
    }
    if (table > bytes.length) break;
    let size = 27 + segments;
    for (let i = at + 27; i < table; i++) size += bytes[i];
    if (at + size > bytes.length) break;
    pages.push({ at, size, granule: Number(view.getBigInt64(at + 6, true)) });
    at += size;
  }
  return pages;
}

/** One speaker's file. */
export class Track {
  #url;
  #bytes;
  #opened;
  #marks; // {offset, ticks}: pages that begin there begin at that time; sorted

  constructor(url, bytes) {
    this.#url = url;
    this.#bytes = bytes;
  }

  /** Decoded sound from a moment on: {buffer, offset}, where `offset` is the moment's place in it, in seconds. */
  async piece(startS, seconds) {
    this.#opened ??= this.#open();
    const { head, skip } = await this.#opened;
    const start = Math.round(startS * RATE);
    const wanted = Math.max(0, start - WARM_TICKS);
    const mark = await this.#locate(wanted);
    const pages = await this.#read(mark, start + Math.ceil(seconds * RATE) + skip);
    if (!pages.length) return null;
    const decoder = new OfflineAudioContext(2, 1, RATE);
    const buffer = await decoder.decodeAudioData(renumber(head, pages, mark.ticks).buffer);
    return { buffer, offset: Math.max(0, (start - mark.ticks) / RATE) };
  }

  async #open() {
    const bytes = await this.#fetch(0, Math.min(this.#bytes, 16 * 1024));
    const [first, second] = findPages(bytes);
    const end = second.at + second.size;
    const skip = bytes[28 + 10] | (bytes[28 + 11] << 8); // OpusHead: pre-skip
    this.#marks = [{ offset: end, ticks: 0 }];
    this.#note(bytes.subarray(end), end);
    return { head: bytes.slice(first.at, end), skip };
  }

  async #locate(ticks) {
    for (let round = 0; round < 32; round++) {
      const index = this.#marks.findLastIndex((mark) => mark.ticks <= ticks);
      const low = this.#marks[index];
      const high = this.#marks[index + 1] ?? { offset: this.#bytes, ticks: Infinity };
      const room = high.offset - low.offset;
      if (room <= READ_BYTES) {
        if (low.scanned) return low;
        this.#note(await this.#fetch(low.offset, high.offset), low.offset);
        low.scanned = true;
        continue;
      }
      const share = round % 2 || high.ticks === Infinity ? 0.5 : (ticks - low.ticks) / (high.ticks - low.ticks);
      const guess = low.offset + Math.floor(Math.min(0.95, share) * room);
      const before = this.#marks.length;
      this.#note(await this.#fetch(guess, Math.min(guess + PROBE_BYTES, high.offset)), guess);
      if (this.#marks.length === before) low.scanned = room <= 4 * READ_BYTES; // no page starts there: read on from low
      if (low.scanned) return low;
    }
    return this.#marks.findLast((mark) => mark.ticks <= ticks);
  }

  #note(bytes, offset) {
    const pages = findPages(bytes);
    pages.forEach((page, number) => {
      if (page.granule < 0) return;
      const next = number < pages.length - 1; // then nothing is between this mark and the one after it
      const mark = { offset: offset + page.at + page.size, ticks: page.granule, scanned: next };
      const index = this.#marks.findIndex((other) => other.offset >= mark.offset);
      if (index < 0) this.#marks.push(mark);
      else if (this.#marks[index].offset !== mark.offset) this.#marks.splice(index, 0, mark);
      else this.#marks[index].scanned ||= next;
    });
  }

  async #read(mark, until) {
    const pages = [];
    let offset = mark.offset;
    while (offset < this.#bytes) {
      const bytes = await this.#fetch(offset, Math.min(offset + READ_BYTES, this.#bytes));
      const found = findPages(bytes);
      if (!found.length) break;
      this.#note(bytes, offset);
      for (const page of found) {
        pages.push({ bytes: bytes.slice(page.at, page.at + page.size), granule: page.granule });
        if (page.granule >= until) return pages;
      }
      const last = found.at(-1);
      offset += last.at + last.size;
    }
    return pages;
  }

  async #fetch(start, stop) {
    const response = await fetch(this.#url, { headers: { Range: `bytes=${start}-${stop - 1}` } });
    if (!response.ok) throw new Error(`the track answered ${response.status}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return response.status === 206 ? bytes : bytes.slice(start, stop);
  }
}

function renumber(head, pages, base) {
  const whole = new Uint8Array(head.length + pages.reduce((sum, page) => sum + page.bytes.length, 0));
  whole.set(head);
  let at = head.length;
  pages.forEach(({ bytes, granule }, number) => {
    whole.set(bytes, at);
    const page = whole.subarray(at, at + bytes.length);
    const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
    page[5] = number === pages.length - 1 ? 4 : 0; // the last of the stream, or one in the middle
    if (granule >= 0) view.setBigInt64(6, BigInt(granule - base), true);
    view.setUint32(18, number + 2, true);
    view.setUint32(22, 0, true);
    view.setUint32(22, checksum(page), true);
    at += bytes.length;
  });
  return whole;
}

/** All voices, each with a gain of its own. Starting and stopping are cheap; `failed` hears of what goes wrong. */
export class Voices {
  #tracks;
  #duration;
  #context;
  #gains = new Map();
  #levels = new Map();
  #sources = new Set();
  #run = 0; // counts starts, so that what belongs to an earlier one stops by itself
  #zero = 0; // the context's time at which the session began
  #at = 0;
  playing = false;
  failed = () => {};
  ended = () => {};

  constructor(tracks, duration) {
    this.#tracks = tracks; // Map of user to Track
    this.#duration = duration;
  }

  get time() {
    if (!this.playing) return this.#at;
    return Math.min(this.#duration, Math.max(this.#at, this.#context.currentTime - this.#zero));
  }

  level(user, factor) {
    this.#levels.set(user, factor);
    const gain = this.#gains.get(user);
    gain?.gain.setTargetAtTime(factor, this.#context.currentTime, 0.01);
  }

  async play(at) {
    this.pause();
    this.#at = at;
    this.#open();
    const run = ++this.#run;
    this.playing = true;
    this.#zero = Infinity; // until the first pieces are here, time stands still
    try {
      await this.#context.resume();
      const seconds = Math.min(PIECE_S, this.#duration - at);
      const first = await Promise.all([...this.#tracks].map(([user, track]) => this.#piece(user, track, at, seconds)));
      if (run !== this.#run) return;
      this.#zero = this.#context.currentTime + START_DELAY_S - at;
      for (const [user, piece] of first) this.#schedule(user, piece, at, seconds);
      await Promise.all([...this.#tracks].map(([user, track]) => this.#feed(run, user, track, at + seconds)));
      await this.#until(run, this.#duration);
      if (run === this.#run) {
        this.pause();
        this.ended();
      }
    } catch (error) {
      if (run !== this.#run) return;
      this.pause();
      this.failed(error);
    }
  }

  pause() {
    this.#at = this.time;
    this.playing = false;
    this.#run += 1;
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
  }

  seek(at) {
    if (this.playing) this.play(at);
    else this.#at = at;
  }

  #open() {
    if (this.#context) return;
    this.#context = new AudioContext({ sampleRate: RATE });
    const limiter = new DynamicsCompressorNode(this.#context, { threshold: -3, ratio: 20, attack: 0.003, release: 0.1 });
    limiter.connect(this.#context.destination);
    for (const user of this.#tracks.keys()) {
      const gain = new GainNode(this.#context, { gain: this.#levels.get(user) ?? 1 });
      gain.connect(limiter);
      this.#gains.set(user, gain);
    }
  }

  async #feed(run, user, track, from) {
    let at = from;
    while (at < this.#duration) {
      await this.#until(run, at - AHEAD_S);
      if (run !== this.#run) return;
      const seconds = Math.min(PIECE_S, this.#duration - at);
      const [, piece] = await this.#piece(user, track, at, seconds);
      if (run !== this.#run) return;
      this.#schedule(user, piece, at, seconds);
      at += seconds;
    }
  }

  async #piece(user, track, at, seconds) {
    return [user, await track.piece(at, seconds)];
  }

  #schedule(user, piece, at, seconds) {
    if (!piece) return;
    const when = this.#zero + at;
    const late = Math.max(0, this.#context.currentTime - when);
    if (late >= seconds) return;
    const source = new AudioBufferSourceNode(this.#context, { buffer: piece.buffer });
    source.connect(this.#gains.get(user));
    source.start(when + late, piece.offset + late, seconds - late);
    source.onended = () => this.#sources.delete(source);
    this.#sources.add(source);
  }

  async #until(run, at) {
    while (run === this.#run && this.#context.currentTime - this.#zero < at) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
