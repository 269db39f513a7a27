// The console's one module: live figures, files, filters, the keyboard. Every page works without it.

// ── what is live ──

const offline = () => document.getElementById("offline");
let paused = false;

// Figures come as server-sent events, and the parts of the page that they are about are replaced: nothing is open for a
// page that nobody sees, or that is paused.
let stream = null;
let listed = "";
let listedAt = 0;

function follow() {
  const place = document.getElementById("live")?.dataset.live;
  if (!place || stream || paused || document.hidden) return;
  stream = new EventSource(place);
  stream.addEventListener("figures", (event) => {
    offline().hidden = true;
    const news = new DOMParser().parseFromString(event.data, "text/html");
    if (news.querySelector('[data-part="charts"]') && !document.querySelector("#live [data-part]")) {
      leave(); // the figures could not be read when this page was written, and now they can
      location.reload();
      return;
    }
    news.querySelectorAll("[data-part]").forEach((part) => {
      document.querySelector(`#live [data-part="${part.dataset.part}"]`)?.replaceChildren(...part.childNodes);
    });
    renewLists(news.querySelector("[data-changes]")?.dataset.changes);
  });
  stream.addEventListener("ended", () => { leave(); location.reload(); });
  stream.addEventListener("open", () => { offline().hidden = true; });
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) { leave(); followAgain(); } else offline().hidden = false;
  });
}

// The stream was refused: the page itself says whether its reader has to sign in again, or the service is away.
async function followAgain() {
  const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
  if (answer?.type === "opaqueredirect") { location.reload(); return; }
  offline().hidden = Boolean(answer?.ok);
  setTimeout(follow, 5000);
}

function leave() {
  stream?.close();
  stream = null;
}

// What failed is the reader's own: it is asked for when the figures say that something did.
async function renewLists(changes) {
  if (!changes || changes === listed || Date.now() - listedAt < 10000) return;
  const first = !listed;
  listed = changes;
  listedAt = Date.now();
  if (first) return;
  const answer = await fetch(location.href).catch(() => null);
  if (!answer || !answer.ok) return;
  const lists = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("lists");
  const old = document.getElementById("lists");
  if (lists && old && !old.contains(document.activeElement)) old.replaceWith(lists);
}

document.addEventListener("visibilitychange", () => { if (document.hidden) leave(); else follow(); });
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", () => { follow(); });
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.classList.contains("polled") && (document.hidden || paused)) event.preventDefault();
});
document.addEventListener("htmx:sendError", () => { offline().hidden = false; });

// A proxy answers for a service that is away, or the service without a page: that is no part of this one.
function isOurs(request) {
  const isPage = (request.getResponseHeader("content-type") ?? "").startsWith("text/html");
  return request.status < 400 || (isPage && request.getResponseHeader("x-request-id") !== null);
}
document.addEventListener("htmx:beforeSwap", (event) => { if (!isOurs(event.detail.xhr)) event.detail.shouldSwap = false; });
document.addEventListener("htmx:afterOnLoad", (event) => {
  offline().hidden = isOurs(event.detail.xhr);
  if (event.detail.xhr.status < 400) document.getElementById("notice").replaceChildren();
});
document.addEventListener("htmx:afterSwap", () => { prepare(); });
document.addEventListener("change", (event) => {
  if (event.target.id !== "pause") return;
  paused = event.target.checked;
  if (paused) leave(); else follow();
});

// ── copying ──

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  const place = button.closest(".call").querySelector(".copied");
  try {
    await navigator.clipboard.writeText(code.textContent);
    place.textContent = place.dataset.copied;
  } catch { // a frame, or the reader, does not allow it
    getSelection().selectAllChildren(code);
    place.textContent = place.dataset.selected;
  }
});

// ── a slider says where it stands ──

document.addEventListener("input", (event) => {
  const output = event.target.type === "range" && document.querySelector(`output[for="${event.target.id}"]`);
  if (output) output.textContent = event.target.value;
});

// ── a file ──

const OF_A_PART = { "HX-Request": "true" }; // a refusal is shown on the page, and does not take its place
const SAMPLE = 262144; // bytes of a file that are checked before it is sent

// Whole lines from the beginning of a file of text; a file of another kind is checked whole.
async function beginning(file) {
  if (file.size <= SAMPLE || /\.(xlsx|gz)$/i.test(file.name)) return { part: file, sample: false };
  const bytes = new Uint8Array(await file.slice(0, SAMPLE).arrayBuffer());
  if (bytes.includes(0)) return { part: file, sample: false }; // UTF-16, or no text
  let quotes = 0;
  let end = 0;
  for (let place = 0; place < bytes.length; place += 1) {
    if (bytes[place] === 34) quotes += 1;
    else if (bytes[place] === 10 && quotes % 2 === 0) end = place + 1; // no line end within a quoted cell
  }
  return end ? { part: file.slice(0, end), sample: true } : { part: file, sample: false };
}

function say(form, text) {
  form.querySelector(".working").textContent = text;
}

// What the service takes at most: nothing of a larger file is sent.
function isTooLarge(form, file) {
  const isLarge = file.size > Number(form.dataset.most);
  if (isLarge) say(form, form.dataset.large);
  return isLarge;
}

// The report takes the place of the one before; another problem stands above the form, which keeps its file. A page of
// a proxy says neither.
function showReport(form, text, status) {
  const other = new DOMParser().parseFromString(text, "text/html");
  const [report, problem] = ["report", "problem"].map((id) => other.getElementById(id));
  const notice = document.getElementById("notice");
  say(form, "");
  notice.replaceChildren(...(problem ? [problem] : []));
  if (report) document.getElementById("report").replaceWith(report);
  else if (problem) notice.scrollIntoView();
  else say(form, status === 413 ? form.dataset.large : form.dataset.lost);
  prepare();
}

let checks = 0;

async function check(form, whole) {
  const file = form.elements.file.files[0];
  if (!form.dataset.check) return undefined; // rows to train on are read by the job
  if (!file) return say(form, form.dataset.choose);
  const number = (checks += 1);
  document.getElementById("report").replaceChildren();
  if (isTooLarge(form, file)) return undefined;
  say(form, form.dataset.checking);
  const address = new URL(form.dataset.check, location.href);
  const body = new FormData();
  try {
    const { part, sample } = whole ? { part: file, sample: false } : await beginning(file);
    await part.slice(0, 1).arrayBuffer(); // a file that was changed since it was chosen cannot be read
    body.append("file", part, file.name);
    if (sample) address.searchParams.set("sample", "1");
  } catch {
    return say(form, form.dataset.unreadable);
  }
  try {
    const answer = await fetch(address, { method: "POST", body, headers: OF_A_PART });
    const text = await answer.text();
    if (number === checks) showReport(form, text, answer.status); // else another file was chosen meanwhile
  } catch {
    if (number === checks) say(form, form.dataset.lost);
  }
  return undefined;
}

function sendFile(form) {
  const file = form.elements.file.files[0];
  if (!file) return say(form, form.dataset.choose);
  if (isTooLarge(form, file)) return undefined;
  const buttons = form.querySelectorAll("button");
  const bar = form.querySelector(".sent");
  const request = new XMLHttpRequest();
  const rest = () => { buttons.forEach((button) => { button.disabled = false; }); bar.hidden = true; };
  buttons.forEach((button) => { button.disabled = true; });
  bar.hidden = false;
  say(form, form.dataset.sending);
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) bar.value = (100 * event.loaded) / event.total;
  });
  request.addEventListener("error", () => { rest(); say(form, form.dataset.lost); });
  request.addEventListener("load", () => {
    const place = new URL(request.responseURL);
    if (place.pathname !== new URL(form.action, location.href).pathname) return location.assign(place);
    rest();
    showReport(form, request.responseText, request.status);
    return undefined;
  });
  request.open("POST", form.action);
  Object.entries(OF_A_PART).forEach((header) => request.setRequestHeader(...header));
  request.send(new FormData(form));
  return undefined;
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "upload") return;
  event.preventDefault();
  if (event.submitter && event.submitter.classList.contains("check")) check(event.target, true);
  else sendFile(event.target);
});
document.addEventListener("change", (event) => {
  if (event.target.id === "file") check(event.target.form, false);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    const field = document.querySelector(".drop");
    if (!field || !event.dataTransfer || !event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    field.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) {
      const input = field.querySelector("input");
      input.files = event.dataTransfer.files;
      check(input.form, false);
    }
  });
}

// ── the list of jobs ──

// The box completes its last word: what it offers begins with the words that stand there already.
let offers = null;

function complete(field) {
  const list = document.getElementById("completions");
  offers ??= [...list.options].map((option) => option.value);
  const start = field.value.lastIndexOf(" ") + 1;
  const before = field.value.slice(0, start);
  const word = field.value.slice(start).toLowerCase();
  const used = before.split(" ").map((part) => part.split(":")[0]);
  const names = [...new Set(offers.map((offer) => `${offer.split(":")[0]}:`))];
  const fitting = [...names, ...offers].filter((offer) => (
    offer.startsWith(word) && offer !== word && !used.includes(offer.split(":")[0])
  ));
  list.replaceChildren(...fitting.slice(0, 20).map((offer) => {
    const option = document.createElement("option");
    option.value = before + offer;
    return option;
  }));
}

document.addEventListener("input", (event) => { if (event.target.id === "q") complete(event.target); });

const boxes = () => [...document.querySelectorAll('#change tbody input[type="checkbox"]')];

function countChosen() {
  const number = boxes().filter((box) => box.checked).length;
  document.querySelectorAll("#change .chosen").forEach((place) => {
    place.textContent = number ? ` (${number})` : "";
    place.parentElement.disabled = !number;
  });
  const every = document.getElementById("every");
  if (every) every.checked = number > 0 && number === boxes().length;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "every") boxes().forEach((box) => { box.checked = event.target.checked; });
  if (event.target.closest("#change")) countChosen();
});

// ── keyboard ──

// Who dictates, or types by accident, can do without single keys (WCAG 2.1.4); a browser that keeps nothing keeps them.
let singleKeys = true;
try { singleKeys = localStorage.getItem("guichet.keys") !== "off"; } catch { singleKeys = true; }
document.addEventListener("change", (event) => {
  if (event.target.id !== "single-keys") return;
  singleKeys = event.target.checked;
  try { localStorage.setItem("guichet.keys", singleKeys ? "on" : "off"); } catch { /* until the next page */ }
});

document.addEventListener("keydown", (event) => {
  const help = document.getElementById("keys");
  if (!singleKeys || event.ctrlKey || event.metaKey || event.altKey || (help && help.open)) return;
  const typing = /^(select|textarea)$/i.test(event.target.tagName)
    || (event.target.tagName === "INPUT" && event.target.type !== "checkbox");
  if (typing) return;
  if (event.key === "/") {
    const field = document.querySelector("form[role=search] select, form[role=search] input");
    if (field) { event.preventDefault(); field.focus(); field.select?.(); }
  } else if (event.key === "?") {
    if (help) { event.preventDefault(); help.showModal(); }
  } else if (event.key === "j" || event.key === "k") {
    const rows = [...document.querySelectorAll("table.rows tbody tr")];
    const place = rows.indexOf(document.activeElement.closest("tr"));
    const next = rows[event.key === "j" ? place + 1 : Math.max(place - 1, 0)];
    if (next) next.querySelector("a.id").focus();
  } else if (event.key === "x") {
    const box = document.activeElement.closest("tr")?.querySelector('input[type="checkbox"]');
    if (box && box.closest("#change")) { event.preventDefault(); box.checked = !box.checked; countChosen(); }
  }
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("button.help")) return;
  document.getElementById("single-keys").checked = singleKeys;
  document.getElementById("keys").showModal();
});

// ── what only makes sense with scripts ──

function prepare() {
  document.querySelectorAll("button.copy").forEach((button) => { button.hidden = !navigator.clipboard; });
  document.querySelectorAll(".pause").forEach((control) => { control.hidden = false; });
  document.querySelectorAll(".unscripted").forEach((advice) => { advice.hidden = true; });
  document.querySelectorAll("button.help, .every").forEach((control) => { control.hidden = false; });
  countChosen();
  const focus = document.querySelector("[data-focus]"); // once: a part that comes later leaves the reader alone
  if (focus) { focus.focus(); delete focus.dataset.focus; }
}

prepare();
follow();
