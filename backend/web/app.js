// Aperta's page. A module, so strict mode throughout. It talks only to the public API, by addresses relative to the
// page, which keeps it working below a path prefix. File names, titles and transcripts are hostile input: they reach
// the page as text nodes only, and the page's Content-Security-Policy refuses every HTML sink.

const PAGE_SIZE = 20;
const POLL_MS = 3000;
const HEALTH_RETRY_MS = 5000;
const SPEAKER_COLOURS = 8; // app.css defines as many
const CONVERSATION_ID = /^[\w-]{1,64}$/; // anything else could climb out of /conversations/
const LANGUAGES =
  "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id " +
  "is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si " +
  "sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh";
const DOWNLOADS = { txt: "Text", srt: "SRT", vtt: "WebVTT", json: "JSON" };
const PLAY_PATH = "M8 5v14l11-7z";
const PAUSE_PATH = "M7 5h4v14H7zM13 5h4v14h-4z";

// ── The document ────────────────────────────────────────────────────────────────────────────────────────────────────

const byId = (id) => document.getElementById(id);

/** An element; strings among the children become text, empty children are left out. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

function svg(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** Say it to screen readers. */
function announce(text) {
  byId("live").textContent = text;
}

// Without a name and password that the page was opened with: fetch refuses those, and the browser sends them anyway.
const base = Object.assign(new URL(document.baseURI), { username: "", password: "" });
const url = (path) => new URL(path, base).href;
const conversationUrl = (id, rest = "") => url(`conversations/${encodeURIComponent(id)}${rest}`);
const jobUrl = (id, rest = "") => url(`jobs/${encodeURIComponent(id)}${rest}`);
const conversationHash = (id) => `#/conversations/${encodeURIComponent(id)}`;

// ── How things are written ──────────────────────────────────────────────────────────────────────────────────────────

const languageNames = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const pad = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), units.length - 1);
  const value = count / 1000 ** power;
  return `${value.toFixed(value < 10 && power > 0 ? 1 : 0)} ${units[power]}`;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const joined = (...parts) => parts.filter(Boolean).join(" · ");

function languageName(code) {
  try {
    return languageNames.of(code);
  } catch {
    return code; // not a code that the browser knows
  }
}

// ── The API ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What went wrong, in words for a person; `problem` is the body of an application/problem+json answer. */
class Problem extends Error {
  constructor(title, detail, status = 0, body = {}) {
    super(detail);
    this.title = title;
    this.status = status;
    this.conversationId = CONVERSATION_ID.test(body.conversation_id) ? body.conversation_id : null;
  }

  static unreachable() {
    return new Problem("No answer", "The server does not answer. Check that it runs and that you are connected.");
  }

  /** From a job that has failed. */
  static fromJob(job) {
    const { title, detail, status } = job.error ?? { title: "Failed", detail: "It gave no reason.", status: 500 };
    return new Problem(title, detail, status, status >= 500 ? { conversation_id: job.conversation_id } : {});
  }

  /** From an answer that is not a success. A proxy in between may have sent something that is no JSON. */
  static fromAnswer(status, statusText, text) {
    let body = {};
    try {
      body = JSON.parse(text) ?? {};
    } catch {
      // described by its status alone
    }
    const title = typeof body.title === "string" ? body.title : `The server answered ${status}`;
    const detail = typeof body.detail === "string" ? body.detail : statusText || "It gave no reason.";
    return new Problem(title, detail, status, body);
  }
}

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Problem.unreachable();
  }
  if (!answer.ok) throw Problem.fromAnswer(answer.status, answer.statusText, await answer.text());
  return answer.status === 204 ? null : answer.json();
}

function problemNote(problem, ...more) {
  const text = [el("strong", {}, problem.title), el("p", {}, problem.message)];
  return el("div", { class: "notice problem", role: "alert" }, ...text, ...more);
}

// ── Uploads: one after the other, in the order they were chosen ─────────────────────────────────────────────────────

const jobs = [];

function readOptions() {
  const names = ["title", "language", "num_speakers", "min_speakers", "max_speakers", "prompt"];
  return new Map(names.map((name) => [name, byId(name).value.trim()]).filter(([, value]) => value !== ""));
}

function enqueue(fileList) {
  const files = [...fileList];
  if (!files.length) return;
  if (!byId("upload").checkValidity()) {
    byId("options").open = true;
    byId("upload").reportValidity();
    return;
  }
  const options = readOptions();
  if (files.length > 1) options.delete("title"); // one title cannot name several recordings
  const opensResult = files.length === 1 && !jobs.some(isActive);
  for (const file of files) addJob(file, options, opensResult);
  byId("title").value = "";
  startNext();
}

const isActive = (job) => job.phase === "waiting" || job.phase === "uploading" || job.phase === "processing";

function addJob(file, options, opensResult) {
  const job = { file, options, opensResult, phase: "waiting", node: el("li", { class: "job" }) };
  jobs.push(job);
  byId("jobs").append(job.node);
  drawJob(job);
}

function startNext() {
  if (jobs.some((job) => job.phase === "uploading" || job.phase === "processing")) return;
  const next = jobs.find((job) => job.phase === "waiting");
  if (next) send(next);
}

function send(job) {
  const form = new FormData();
  for (const [name, value] of job.options) form.append(name, value); // before the file: the server reads as it comes
  form.append("file", job.file, job.file.name);
  const xhr = new XMLHttpRequest(); // fetch tells no upload progress
  job.xhr = xhr;
  xhr.open("POST", url("audio/process"));
  xhr.setRequestHeader("Accept", "application/json");
  xhr.setRequestHeader("Prefer", "respond-async");
  xhr.upload.addEventListener("progress", (event) => showUploaded(job, event.loaded, event.total));
  xhr.upload.addEventListener("load", () => (job.status.textContent = "Uploaded"));
  xhr.addEventListener("load", () => receive(job, xhr));
  xhr.addEventListener("error", () => fail(job, brokenConnection()));
  xhr.addEventListener("abort", () => removeJob(job));
  setPhase(job, "uploading");
  xhr.send(form);
}

function brokenConnection() {
  const detail = "The connection broke during the upload. The server may be gone, or the file larger than it accepts.";
  return new Problem("Connection lost", detail);
}

/** The recording was accepted: from here on the server sees it through, and tells how far it is. */
function receive(job, xhr) {
  if (xhr.status !== 202) return fail(job, Problem.fromAnswer(xhr.status, xhr.statusText, xhr.responseText));
  try {
    job.id = JSON.parse(xhr.responseText).id;
  } catch {
    return fail(job, new Problem("Unreadable answer", "The server's answer makes no sense. Look in the list below."));
  }
  setPhase(job, "processing");
  follow(job);
}

/** Listen to a job until it has ended; the browser reconnects by itself, and goes on where it was. */
function follow(job) {
  job.events = new EventSource(jobUrl(job.id, "/events"));
  const on = (name, handle) => job.events.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  const end = (handle) => (state) => {
    job.events.close();
    handle(state);
  };
  on("queued", (state) => showProgress(job, state));
  on("progress", (state) => showProgress(job, state));
  on("completed", end((state) => showDone(job, state.conversation_id)));
  on("failed", end((state) => fail(job, Problem.fromJob(state))));
  on("cancelled", end(() => removeJob(job)));
  job.events.addEventListener("error", () => {
    if (job.events.readyState === EventSource.CLOSED) fail(job, Problem.unreachable());
  });
}

async function showDone(job, conversationId) {
  try {
    job.result = await request(conversationUrl(conversationId));
  } catch (problem) {
    return fail(job, problem);
  }
  announce(`${job.file.name}: ${resultLine(job.result)}`);
  setPhase(job, "done");
  if (job.opensResult && isHome()) {
    removeJob(job);
    location.hash = conversationHash(conversationId);
  } else if (isHome()) {
    showHistory();
  }
  startNext();
}

function fail(job, problem) {
  job.problem = problem;
  setPhase(job, "failed");
  if (isHome()) showHistory();
  startNext();
}

function setPhase(job, phase) {
  if (job.phase === phase) return;
  const spoken = { uploading: "uploading", processing: "uploaded, transcribing" }[phase];
  if (spoken) announce(`${job.file.name}: ${spoken}`);
  job.phase = phase;
  job.phaseStartedAt = performance.now();
  drawJob(job);
}

function removeJob(job) {
  const index = jobs.indexOf(job);
  if (index < 0) return;
  jobs.splice(index, 1);
  job.node.remove();
  showQueue();
  startNext();
}

async function cancelJob(job) {
  try {
    await request(jobUrl(job.id), { method: "DELETE" });
  } catch (problem) {
    announce(`${job.file.name}: ${problem.message}`); // it has ended meanwhile, which its events tell
  }
}

function retryJob(job) {
  delete job.problem;
  setPhase(job, "waiting");
  startNext();
}

function drawJob(job) {
  job.status = el("span", { class: "quiet job-status" });
  const name = el("span", { class: "job-name" }, el("bdi", {}, job.file.name));
  job.node.replaceChildren(el("div", { class: "job-line" }, name, job.status, ...JOB_BUTTONS[job.phase](job)));
  if (job.phase === "uploading" || job.phase === "processing") {
    job.progress = el("progress", { max: 1, "aria-label": `Progress of ${job.file.name}` });
    if (job.phase === "uploading") job.progress.value = 0;
    job.node.append(job.progress);
  }
  if (job.phase === "failed") job.node.append(problemNote(job.problem, storedLink(job.problem)));
  tick(job);
  showQueue();
}

const JOB_BUTTONS = {
  waiting: (job) => [button("Remove", () => removeJob(job), job)],
  uploading: (job) => [button("Cancel", () => job.xhr.abort(), job)],
  processing: (job) => [button("Cancel", () => cancelJob(job), job)],
  done: (job) => [
    el("a", { class: "button", href: conversationHash(job.result.id) }, "Open"),
    button("Dismiss", () => removeJob(job), job),
  ],
  failed: (job) => [button("Try again", () => retryJob(job), job), button("Dismiss", () => removeJob(job), job)],
};

function button(text, onclick, job) {
  return el("button", { type: "button", onclick, "aria-label": `${text}: ${job.file.name}` }, text);
}

function storedLink(problem) {
  if (!problem.conversationId) return null;
  return el("p", {}, el("a", { href: conversationHash(problem.conversationId) }, "Open the stored recording"));
}

function showUploaded(job, loaded, total) {
  if (job.phase !== "uploading") return;
  job.progress.value = total ? loaded / total : 0;
  job.status.textContent = `Uploading, ${bytes(loaded)} of ${bytes(total)}`;
}

/** Write what a job is doing; once a second for the one whose time runs. */
function tick(job) {
  const elapsed = clock((performance.now() - job.phaseStartedAt) / 1000);
  const texts = {
    waiting: () => "Waiting",
    uploading: () => "Uploading",
    processing: () => joined(progressLine(job.state), elapsed),
    done: () => resultLine(job.result),
    failed: () => "",
  };
  job.status.textContent = texts[job.phase]();
}

const STAGE_WORDS = { decode: "Reading", diarize: "Telling voices apart", store: "Storing" };

function progressLine(state) {
  if (state?.position) return `Waiting, number ${state.position} in the queue`;
  const left = state?.seconds_left ? `about ${clock(state.seconds_left)} left` : "";
  return joined(`${STAGE_WORDS[state?.stage] ?? "Transcribing"}…`, left);
}

function showProgress(job, state) {
  job.state = state;
  if (state.status === "running") job.progress.value = state.progress;
  tick(job);
}

function resultLine({ transcript, duration_s }) {
  const what = transcript.segments.length ? plural(transcript.speaker_count, "speaker") : "Nothing was said";
  return joined(what, clock(duration_s));
}

function showQueue() {
  byId("queue").hidden = !(jobs.length && (isHome() || jobs.some(isActive)));
}

// ── The list ────────────────────────────────────────────────────────────────────────────────────────────────────────

const STATUS_WORDS = { completed: "Completed", processing: "Transcribing…", failed: "Failed" };
let historyPage = 1;

async function showHistory() {
  const offset = (historyPage - 1) * PAGE_SIZE;
  const started = currentVisit;
  let found;
  try {
    found = await request(url(`conversations?limit=${PAGE_SIZE}&offset=${offset}`));
  } catch (problem) {
    if (started === currentVisit) byId("history-problem").replaceChildren(problemNote(problem));
    return;
  }
  if (started !== currentVisit) return;
  drawHistory(found);
  if (found.conversations.some((row) => row.status === "processing")) later(showHistory);
}

function drawHistory({ conversations, total, offset }) {
  byId("history-problem").replaceChildren();
  byId("rows").replaceChildren(...conversations.map(historyRow));
  byId("history-empty").hidden = total > 0;
  const last = Math.max(1, Math.ceil(total / PAGE_SIZE));
  byId("pages").hidden = last === 1 && historyPage === 1;
  byId("page-range").textContent = conversations.length
    ? `${offset + 1}–${offset + conversations.length} of ${total}`
    : `Page ${historyPage} is empty`;
  pageLink(byId("newer"), historyPage > 1 ? Math.min(historyPage - 1, last) : null);
  pageLink(byId("older"), historyPage < last ? historyPage + 1 : null);
}

/** A link without an address cannot be followed, and keeps its place in the layout. */
function pageLink(link, page) {
  if (page === null) link.removeAttribute("href");
  else link.href = page === 1 ? "#/" : `#/page/${page}`;
}

function historyRow(row) {
  const name = row.title || row.filename;
  const link = el(
    "a",
    { class: "row", href: conversationHash(row.id) },
    el("span", { class: "row-name" }, el("bdi", {}, name)),
    el("span", { class: `status ${row.status}` }, STATUS_WORDS[row.status] ?? row.status),
    el("span", { class: "quiet row-facts" }, joined(...findings(row), when(row.created_at))),
  );
  return el("li", {}, link);
}

function findings({ status, speaker_count, duration_s }) {
  if (status !== "completed") return [];
  return [speaker_count ? plural(speaker_count, "speaker") : "Nothing was said", clock(duration_s)];
}

function when(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.valueOf()) ? "" : dates.format(date);
}

// ── One conversation ────────────────────────────────────────────────────────────────────────────────────────────────

let shown = null; // the conversation on the page

async function showConversation(id) {
  const started = currentVisit;
  let conversation;
  try {
    if (!CONVERSATION_ID.test(id)) throw new Problem("Not found", "This address names no conversation.");
    conversation = await request(conversationUrl(id));
  } catch (problem) {
    if (started === currentVisit) showMissing(problem);
    return;
  }
  if (started !== currentVisit) return;
  drawConversation(conversation);
  if (conversation.status === "processing") later(() => showConversation(id));
}

function showMissing(problem) {
  unloadAudio();
  shown = null;
  byId("conversation").hidden = true;
  byId("missing").hidden = false;
  byId("missing-title").textContent = problem.status === 404 ? "Not found" : problem.title;
  byId("missing-problem").replaceChildren(el("p", {}, problem.message));
  arrive("missing-title", byId("missing-title").textContent);
}

function drawConversation(conversation) {
  const again = shown?.id === conversation.id;
  shown = conversation;
  const name = conversation.title || conversation.filename;
  byId("conversation-title").replaceChildren(el("bdi", {}, name));
  byId("conversation-facts").textContent = conversationFacts(conversation);
  byId("conversation-notices").replaceChildren(...conversationNotices(conversation));
  drawSpeakers(conversation.transcript);
  drawSegments(conversation.transcript);
  drawPlayer(conversation);
  drawActions(conversation);
  drawStored(conversation);
  byId("conversation").hidden = false;
  if (!again) arrive("conversation-title", name);
}

function conversationFacts({ title, filename, created_at, duration_s, language, status }) {
  return joined(
    title && title !== filename && filename,
    when(created_at),
    status === "completed" && clock(duration_s),
    language && languageName(language),
  );
}

function conversationNotices({ status, error, transcript, warnings }) {
  const note = (kind, ...text) => el("p", { class: `notice ${kind}` }, ...text);
  const notices = (warnings ?? []).map((warning) => note("", warning));
  if (status === "processing") {
    notices.push(note("calm", "This recording is being transcribed. The result appears here."));
  }
  if (status === "failed") {
    notices.push(problemNote(new Problem("Processing failed", error || "The server gave no reason.")));
  }
  if (transcript && !transcript.segments.length) {
    notices.push(note("calm", el("strong", {}, "Nothing was said."), " No speech was found in this recording."));
  }
  return notices;
}

const speakersOf = (transcript) => (transcript ? Object.keys(transcript.speaker_stats) : []);

/** A speaker's colour class; the order of the statistics decides, so that it is the same everywhere. */
const colourOf = (speakers, name) => `speaker-${Math.max(0, speakers.indexOf(name)) % SPEAKER_COLOURS}`;

function drawSpeakers(transcript) {
  const speakers = speakersOf(transcript);
  byId("speakers").hidden = !speakers.length;
  const row = (name) => speakerRow(speakers, name, transcript.speaker_stats[name]);
  byId("speaker-rows").replaceChildren(...speakers.map(row));
}

function speakerRow(speakers, name, stats) {
  const percent = Math.round(stats.share * 100);
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span", { class: "bar-fill" }));
  bar.firstChild.style.width = `${stats.share * 100}%`; // by script: the policy refuses style attributes
  return el(
    "li",
    { class: colourOf(speakers, name) },
    el("span", { class: "speaker-name" }, el("bdi", {}, name)),
    bar,
    el("span", { class: "speaker-share" }, `${percent} %`),
    el("span", { class: "quiet speaker-facts" }, spokenFacts(stats)),
  );
}

const spokenFacts = (stats) => joined(clock(stats.speaking_time_s), plural(stats.word_count, "word"));

function drawSegments(transcript) {
  const segments = transcript?.segments ?? [];
  const speakers = speakersOf(transcript);
  byId("transcript").hidden = !segments.length;
  byId("segments").replaceChildren(
    ...segments.map((segment, index) => segmentItem(speakers, segment, index, segments[index - 1]?.speaker)),
  );
}

function segmentItem(speakers, segment, index, before) {
  const continues = segment.speaker === before;
  const begins = clock(segment.start);
  const item = el(
    "li",
    { class: `segment ${colourOf(speakers, segment.speaker)}${continues ? " continues" : ""}` },
    el("span", { class: continues ? "who unseen" : "who" }, el("bdi", {}, segment.speaker)),
    el("button", { type: "button", class: "at", "aria-label": `Play from ${begins}` }, begins),
    el("p", { dir: "auto" }, segment.text),
  );
  item.addEventListener("click", () => {
    if (getSelection().isCollapsed) playFrom(shown.transcript.segments[index].start); // not while text is being marked
  });
  return item;
}

function drawActions({ id, filename, status }) {
  const stem = filename.replace(/\.[^.]*$/, "") || "transcript";
  const link = (href, download, text) => el("a", { href, download }, text);
  const transcripts = Object.entries(DOWNLOADS).map(([format, text]) =>
    link(conversationUrl(id, `/transcript?format=${format}`), `${stem}.${format}`, text),
  );
  const links = status === "completed" ? transcripts : [];
  if (hasAudio(shown)) links.push(link(conversationUrl(id, "/audio"), filename, "Recording"));
  byId("downloads").replaceChildren(links.length ? "Download " : "", ...links);
}

const hasAudio = (conversation) => conversation.recording_url !== null;

function drawStored(conversation) {
  const engines = Object.entries(conversation.engines ?? {}).map(([job, engine]) => [capital(job), engine]);
  const place = (item) => joined(item.locator, bytes(item.size_bytes));
  const objects = conversation.objects.map((item) => [capital(item.kind), place(item)]);
  const facts = [["Conversation", conversation.id], ...engines, ...objects];
  byId("stored-facts").replaceChildren(...facts.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
  byId("stored").hidden = false;
}

const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

// ── The player: the position slider lies over a strip that shows who speaks when ────────────────────────────────────

const audio = byId("audio");
const seek = byId("seek");
let activeIndex = -1;

function drawPlayer(conversation) {
  byId("player").hidden = !hasAudio(conversation);
  if (!hasAudio(conversation)) return unloadAudio();
  const source = conversationUrl(conversation.id, "/audio");
  if (audio.src !== source) {
    audio.src = source;
    byId("player-problem").hidden = true;
  }
  audio.playbackRate = Number(byId("rate").value);
  drawStrip(conversation);
  setLength(conversation.duration_s ?? 0);
  activeIndex = -1;
  showPosition();
}

function unloadAudio() {
  audio.pause();
  audio.removeAttribute("src");
  audio.load(); // without it the last recording goes on loading
}

function setLength(seconds) {
  seek.max = seconds;
  byId("length").textContent = clock(seconds);
}

/** One lane and one path per speaker: few elements however long the recording is. */
function drawStrip({ transcript, duration_s }) {
  const speakers = speakersOf(transcript);
  const strip = byId("turns");
  strip.setAttribute("viewBox", `0 0 ${duration_s || 1} ${Math.max(1, speakers.length)}`);
  strip.replaceChildren(
    ...speakers.map((name, lane) => {
      const turns = transcript.segments.filter((segment) => segment.speaker === name);
      const d = turns.map(({ start, end }) => `M${start} ${lane + 0.5}H${Math.max(end, start)}`).join("");
      return svg("path", { d, class: colourOf(speakers, name), "stroke-width": laneWidth(speakers.length) });
    }),
  );
}

/** In CSS pixels, as strokes do not scale with the strip. */
const laneWidth = (lanes) => Math.max(1.5, Math.min(7, 40 / Math.max(1, lanes) - 3));

function playFrom(seconds) {
  if (byId("player").hidden) return;
  audio.currentTime = seconds;
  showPosition();
  audio.play().catch(() => {}); // refused or broken: the error event says so
}

function togglePlay() {
  if (audio.paused) audio.play().catch(() => {});
  else audio.pause();
}

function showPlaying() {
  byId("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
  byId("play-icon").setAttribute("d", audio.paused ? PLAY_PATH : PAUSE_PATH);
  if (!audio.paused) requestAnimationFrame(followPlaying);
}

function followPlaying() {
  showPosition();
  if (!audio.paused) requestAnimationFrame(followPlaying);
}

function showPosition() {
  const seconds = audio.currentTime;
  seek.value = seconds;
  const text = clock(seconds);
  if (byId("elapsed").textContent !== text) {
    byId("elapsed").textContent = text;
    seek.setAttribute("aria-valuetext", `${text} of ${byId("length").textContent}`);
  }
  if (shown?.transcript) markActive(segmentAt(shown.transcript.segments, seconds));
}

/** The index of the segment that is heard at this time, or -1: the last that has begun, if it has not ended. */
function segmentAt(segments, seconds) {
  let low = 0;
  let high = segments.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (segments[middle].start <= seconds) low = middle + 1;
    else high = middle;
  }
  return low > 0 && seconds < segments[low - 1].end ? low - 1 : -1;
}

function markActive(index) {
  const heard = audio.paused && audio.currentTime === 0 ? -1 : index; // nothing is marked before the first use
  if (heard === activeIndex) return;
  const items = byId("segments").children;
  const before = items[activeIndex];
  const followed = !before || isInView(before);
  before?.removeAttribute("aria-current");
  activeIndex = heard;
  const item = items[heard];
  item?.setAttribute("aria-current", "true");
  if (item && followed && !audio.paused && !isInView(item)) {
    item.scrollIntoView({ block: "center", behavior: scrollBehavior() });
  }
}

function isInView(node) {
  const { top, bottom } = node.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

const scrollBehavior = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");

function showAudioError() {
  if (!audio.getAttribute("src")) return;
  byId("player-problem").textContent =
    "This browser cannot play the recording: the format is new to it, or the file is out of reach. Try to download it.";
  byId("player-problem").hidden = false;
}

// ── Deletion ────────────────────────────────────────────────────────────────────────────────────────────────────────

function askDelete() {
  byId("confirm-text").replaceChildren(
    el("strong", {}, el("bdi", {}, shown.title || shown.filename)),
    " will be gone: the recording, its transcript and what the database knows of it. This cannot be undone.",
  );
  byId("confirm-problem").replaceChildren();
  byId("confirm").showModal();
}

async function deleteShown() {
  const { id, title, filename } = shown;
  byId("confirm-delete").disabled = true;
  try {
    await request(conversationUrl(id), { method: "DELETE" });
  } catch (problem) {
    const gone = problem.status === 404; // someone else was faster
    if (!gone) return byId("confirm-problem").replaceChildren(problemNote(problem));
  } finally {
    byId("confirm-delete").disabled = false;
  }
  byId("confirm").close();
  forgetJobs(id);
  location.hash = "#/";
  announce(`${title || filename} was deleted.`);
}

function forgetJobs(conversationId) {
  jobs.filter((job) => job.result?.id === conversationId).forEach(removeJob);
}

// ── State of the server ─────────────────────────────────────────────────────────────────────────────────────────────

async function showState() {
  try {
    const [health, storage] = await Promise.all([request(url("health")), request(url("audio/storage-info"))]);
    byId("state").textContent = stateLine(health, storage);
    byId("attribution").textContent = health.attribution.join(" · ");
    showDegraded(storage);
    if (!health.ready) setTimeout(showState, HEALTH_RETRY_MS);
  } catch (problem) {
    byId("state").textContent = problem.message;
    setTimeout(showState, HEALTH_RETRY_MS);
  }
}

function stateLine({ engines, ready, version }, storage) {
  const place = storage.storage_type === "s3" ? `s3://${storage.s3_bucket}` : storage.local_path;
  const room = storage.storage_type !== "s3" && storage.free_bytes !== null && `${bytes(storage.free_bytes)} free`;
  const speech = Object.values(engines).filter((engine) => engine !== "none").join(" + ");
  return joined(`Aperta ${version}`, ready ? speech : `${speech} (loading)`, `Stored in ${place}`, room);
}

function showDegraded({ reason, storage_type }) {
  byId("degraded").hidden = !reason;
  if (!reason) return;
  const place = storage_type === "s3" ? "" : " New recordings go to the local folder until it is back.";
  byId("degraded").textContent = `S3 is set up but not in use: ${reason}${/[.!?]$/.test(reason) ? "" : "."}${place}`;
}

// ── Addresses: #/ · #/page/N · #/conversations/ID ───────────────────────────────────────────────────────────────────

let currentVisit = 0; // answers to questions of an earlier visit are dropped
let pollTimer = 0;

const isHome = () => !location.hash.startsWith("#/conversations/");

/** Ask again later, unless the page has moved on by then. */
function later(ask) {
  clearTimeout(pollTimer);
  pollTimer = setTimeout(ask, POLL_MS);
}

function route() {
  currentVisit += 1;
  clearTimeout(pollTimer);
  if (byId("confirm").open) byId("confirm").close();
  for (const id of ["home", "history", "conversation", "missing"]) byId(id).hidden = true;
  if (isHome()) showHome();
  else showConversation(decoded(location.hash.slice("#/conversations/".length)));
  showQueue();
}

function showHome() {
  unloadAudio();
  shown = null;
  historyPage = Math.max(1, Number(/^#\/page\/(\d{1,6})$/.exec(location.hash)?.[1] ?? 1));
  byId("home").hidden = historyPage > 1;
  byId("history").hidden = false;
  document.title = "Aperta";
  if (currentVisit > 1) byId("main").focus({ preventScroll: true });
  if (currentVisit > 1) scrollTo(0, 0);
  showHistory();
}

/** A new view: its heading takes the focus, so that keyboards and screen readers start there. */
function arrive(headingId, name) {
  document.title = `${name} · Aperta`;
  scrollTo(0, 0);
  byId(headingId).focus({ preventScroll: true });
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

// ── Wiring ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function wireUpload() {
  const options = LANGUAGES.split(" ").map((code) => [languageName(code), code]);
  options.sort(([one], [other]) => one.localeCompare(other));
  byId("language").append(...options.map(([name, value]) => el("option", { value }, name)));
  byId("upload").addEventListener("submit", (event) => event.preventDefault());
  byId("files").addEventListener("change", (event) => {
    enqueue(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  setInterval(() => jobs.filter((job) => job.phase === "processing").forEach(tick), 1000);
  addEventListener("beforeunload", (event) => {
    if (jobs.some(isActive)) event.preventDefault(); // the browser asks before uploads are lost
  });
}

/** Files can be dropped anywhere; the frame shows where only while one is over the page. */
function wireDrop() {
  let depth = 0; // enter and leave come for every element on the way
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && mark(1));
  addEventListener("dragleave", (event) => carriesFiles(event) && mark(-1));
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    mark(-depth);
    if (!isHome()) location.hash = "#/";
    enqueue(event.dataTransfer.files);
  });
}

function wirePlayer() {
  byId("play").addEventListener("click", togglePlay);
  byId("rate").addEventListener("change", (event) => (audio.playbackRate = Number(event.target.value)));
  seek.addEventListener("input", () => {
    audio.currentTime = Number(seek.value);
    showPosition();
  });
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, showPlaying);
  for (const event of ["timeupdate", "seeked"]) audio.addEventListener(event, showPosition);
  audio.addEventListener("error", showAudioError);
  audio.addEventListener("loadedmetadata", () => {
    audio.playbackRate = Number(byId("rate").value);
    if (!shown?.duration_s && Number.isFinite(audio.duration)) setLength(audio.duration);
  });
}

function wireSkipLink() {
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the hash is the router's
    byId("main").focus();
  });
}

wireUpload();
wireDrop();
wirePlayer();
wireSkipLink();
byId("delete").addEventListener("click", askDelete);
byId("confirm-delete").addEventListener("click", deleteShown);
addEventListener("hashchange", route);
route();
showState();
