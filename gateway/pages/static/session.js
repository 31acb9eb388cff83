// The page of a session: one transport over the ready mix and, as soon as somebody is muted or moved, over the voices
// themselves; the same choices make a mix for good. Without this script the page plays, downloads and mixes, too.

import { Lanes, say } from "./lanes.js";
import { Track, Voices } from "./player.js";

const STEP_S = 5;
const JUMP_S = 30;
const studio = document.getElementById("studio");
const find = (id) => document.getElementById(id);

class Studio {
  #timeline;
  #rows = new Map(); // user to lane
  #lanes;
  #voices;
  #mix = find("mix");
  #wanted = false; // somebody pressed play
  #at = 0;

  constructor(timeline) {
    this.#timeline = timeline;
    for (const row of document.querySelectorAll(".lane")) {
      const knob = row.querySelector(".gain input");
      if (knob) knob.type = "range"; // a number, for who has no script to show it
      this.#rows.set(row.dataset.user, row);
    }
    const tracks = timeline.lanes.filter((lane) => lane.track && this.#rows.has(lane.user));
    const files = new Map(tracks.map((lane) => [lane.user, new Track(lane.track.url, lane.track.bytes)]));
    if (files.size) this.#voices = new Voices(files, timeline.duration_s);
    if (timeline.duration_s && find("ruler")) {
      this.#lanes = new Lanes(timeline, this.#rows, find("ruler"));
      this.#lanes.onseek((at) => this.seek(at));
      this.#explain();
      this.#lanes.load().catch(() => this.#tell("The waveforms could not be loaded."));
    }
    if (!this.#mix && !this.#voices) return;
    this.#wire();
    this.#hear();
    this.#paint();
  }

  /** What the marks on the lanes mean, if there are any. */
  #explain() {
    const marks = [];
    if (this.#timeline.gaps.length) marks.push("Hatched: nothing was recorded.");
    if (this.#timeline.lanes.some((lane) => lane.losses.length)) {
      marks.push("Bars below a voice: packets that never came; short losses are concealed.");
    }
    if (this.#timeline.notes.length) marks.push("Flags and lines: notes.");
    find("legend").textContent = marks.join(" ");
    find("legend").hidden = !marks.length;
  }

  /** Waveforms that were not there before. */
  async reload() {
    const missing = this.#timeline.lanes.some((lane) => lane.track && !lane.peaks);
    const response = missing && (await fetch(`${studio.dataset.base}/timeline`));
    if (!response?.ok) return;
    this.#timeline.lanes = (await response.json()).lanes;
    await this.#lanes?.load();
  }

  // What is heard

  get #custom() {
    return [...this.#rows.values()].some((row) => row.querySelector("input:checked, .solo:checked") || gain(row));
  }

  get #player() {
    return this.#voices && (this.#custom || !this.#mix) ? this.#voices : this.#mix;
  }

  get time() {
    if (!this.#wanted) return this.#at;
    return this.#player === this.#mix ? this.#mix.currentTime : this.#voices.time;
  }

  play() {
    this.#wanted = true;
    if (this.#player === this.#mix) {
      this.#voices?.pause();
      this.#mix.currentTime = this.#at;
      this.#mix.play().catch((error) => {
        if (error.name !== "AbortError") this.#stop("The mix cannot be played here; download it instead."); // else paused meanwhile
      });
      this.#tell("");
    } else {
      this.#mix?.pause();
      this.#voices.play(this.#at);
      this.#tell("You hear the voices as you set them; make this mix to keep it.");
    }
    this.#paint();
  }

  pause() {
    this.#at = this.time;
    this.#wanted = false;
    this.#mix?.pause();
    this.#voices?.pause();
    this.#paint();
  }

  seek(at) {
    this.#at = Math.min(Math.max(0, at), this.#timeline.duration_s);
    if (this.#wanted) this.play();
    else this.#paint();
  }

  /** Levels follow the knobs at once; what plays changes only if it has to. */
  #hear() {
    const soloed = [...this.#rows.values()].some((row) => row.querySelector(".solo").checked);
    const before = this.#wanted ? this.#player : null;
    for (const [user, row] of this.#rows) {
      const muted = row.querySelector("[name=mute]").checked || (soloed && !row.querySelector(".solo").checked);
      row.querySelector(".gain output").textContent = `${gain(row) > 0 ? "+" : ""}${gain(row)} dB`;
      row.classList.toggle("silent", muted);
      this.#lanes?.hear(user, !muted);
      this.#voices?.level(user, muted ? 0 : 10 ** (gain(row) / 20));
    }
    return before;
  }

  #change() {
    const at = this.time;
    const playing = this.#wanted ? (this.#voices?.playing ? this.#voices : this.#mix) : null;
    this.#hear();
    if (playing && playing !== this.#player) {
      this.#at = at;
      this.play();
    }
  }

  #stop(why) {
    this.pause();
    this.#tell(why);
  }

  #tell(text) {
    find("playing").textContent = text;
    find("playing").hidden = !text;
  }

  // What is seen

  #paint() {
    const at = this.time;
    find("clock").textContent = say(at);
    find("seek").value = at;
    find("seek").setAttribute("aria-valuetext", `${say(at)} of ${say(this.#timeline.duration_s)}`);
    find("play").setAttribute("aria-label", this.#wanted ? "Pause" : "Play");
    find("play").classList.toggle("on", this.#wanted);
    this.#lanes?.point(at, this.#wanted);
    if (this.#wanted) requestAnimationFrame(() => this.#wanted && this.#paint());
  }

  // What is pressed

  #wire() {
    find("transport").hidden = false;
    find("seek").max = this.#timeline.duration_s;
    find("total").textContent = say(this.#timeline.duration_s);
    if (this.#mix) {
      this.#mix.controls = false;
      this.#mix.addEventListener("ended", () => this.#finish());
    }
    if (this.#voices) {
      this.#voices.ended = () => this.#finish();
      this.#voices.failed = (error) => this.#stop(`The voices cannot be played: ${error.message}`);
    }
    find("play").addEventListener("click", () => this.toggle());
    find("seek").addEventListener("input", () => this.seek(Number(find("seek").value)));
    find("in").addEventListener("click", () => this.#zoom(0.5));
    find("out").addEventListener("click", () => this.#zoom(2));
    find("fit").addEventListener("click", () => this.#zoom(Infinity));
    studio.addEventListener("change", () => this.#change());
    studio.addEventListener("input", (event) => event.target.closest(".gain") && this.#change());
    for (const [id, name] of [["from-here", "from"], ["to-here", "to"]]) {
      find(id)?.addEventListener("click", () => (studio.elements[name].value = say(this.time)));
    }
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("click", (event) => {
      const moment = event.target.closest("button.at");
      if (moment) this.seek(Number(moment.dataset.at));
    });
  }

  toggle() {
    if (this.#wanted) this.pause();
    else this.play();
  }

  #finish() {
    this.pause();
    this.#at = 0;
    this.#paint();
  }

  #zoom(factor) {
    this.#lanes?.zoom(factor, this.time);
    this.#lanes?.point(this.time, false);
  }

  #key(event) {
    const typing = event.target.closest("input:not([type=checkbox]), select, textarea, audio");
    const pressing = event.key === " " && event.target.closest("button, a, summary, input");
    if (typing || pressing || event.ctrlKey || event.altKey || event.metaKey) return;
    const digit = /^Digit([1-9])$/.exec(event.code);
    const keys = {
      " ": () => this.toggle(),
      k: () => this.toggle(),
      ArrowLeft: () => this.seek(this.time - STEP_S),
      ArrowRight: () => this.seek(this.time + STEP_S),
      j: () => this.seek(this.time - JUMP_S),
      l: () => this.seek(this.time + JUMP_S),
      Home: () => this.seek(0),
      End: () => this.seek(this.#timeline.duration_s),
      n: () => this.#nextNote(),
      "+": () => this.#zoom(0.5),
      "-": () => this.#zoom(2),
      0: () => this.#zoom(Infinity),
    };
    const act = digit ? () => this.#press(Number(digit[1]), event.shiftKey) : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  #press(number, solo) {
    const row = [...this.#rows.values()][number - 1];
    row?.querySelector(solo ? ".solo" : "[name=mute]").click();
  }

  #nextNote() {
    const next = this.#timeline.notes.find((note) => note.at_s > this.time + 0.5);
    if (next) this.seek(next.at_s);
  }
}

function gain(row) {
  return Number(row.querySelector(".gain input").value);
}

// Notes become buttons that lead to their moment.
function wireNotes() {
  for (const at of document.querySelectorAll("span.at")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = at.className;
    button.dataset.at = at.dataset.at;
    button.textContent = at.textContent;
    button.setAttribute("aria-label", `Go to ${at.textContent}`);
    at.replaceWith(button);
  }
}

// Making a mix

async function makeMix(event) {
  event.preventDefault();
  const form = new FormData(studio);
  const soloed = [...studio.querySelectorAll(".solo:checked")].map((box) => box.value);
  if (soloed.length) {
    form.delete("mute");
    for (const box of studio.querySelectorAll("[name=mute]")) if (!soloed.includes(box.value)) form.append("mute", box.value);
  }
  const button = studio.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const response = await fetch(studio.action, { method: "POST", body: new URLSearchParams(form), headers: { Accept: "application/json" } });
    const answer = await response.json();
    find("made").textContent = response.ok ? "It is being made; it will be among the other versions." : answer.detail;
    await refresh();
  } catch {
    find("made").textContent = "The server cannot be reached; try again.";
  } finally {
    button.disabled = false;
  }
}

// Following what changes

let version = studio.dataset.version;

function follow() {
  const feed = new EventSource(`${studio.dataset.base}/events`);
  feed.addEventListener("state", async (event) => {
    const state = JSON.parse(event.data);
    if (state.state === "live") find("length").textContent = say(state.duration_s);
    for (const mix of state.mixes) showProgress(mix);
    if (state.version === version) return;
    version = state.version;
    await refresh();
  });
}

function showProgress(mix) {
  const bar = document.querySelector(`[data-job="${CSS.escape(mix.job)}"] progress`);
  if (bar) bar.value = mix.fraction * 100;
}

/** Put what the server says now in the place of what it said before; a player that plays is left alone. */
async function refresh() {
  const response = await fetch(studio.dataset.base, { headers: { Accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (page.getElementById("studio").dataset.stage !== studio.dataset.stage) {
    location.reload(); // the call has ended, or there is more to play: everything is different
    return;
  }
  for (const part of document.querySelectorAll("[data-fresh]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || part.id === "listening" || part.innerHTML === fresh.innerHTML) continue;
    part.replaceChildren(...fresh.childNodes);
    part.hidden = fresh.hidden;
  }
  wireNotes();
  await open?.reload();
}

let open; // the studio, once there is something to play

async function start() {
  document.body.classList.add("scripting");
  wireNotes();
  studio.addEventListener("submit", makeMix);
  follow();
  const response = await fetch(`${studio.dataset.base}/timeline`);
  if (response.ok) open = new Studio(await response.json());
}

start();
