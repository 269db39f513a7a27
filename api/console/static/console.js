// The console's one module: dropping and checking files, copying, pausing what is live. Every page works without it.

// ── what is live ──

const offline = () => document.getElementById("offline");
let paused = false;

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.classList.contains("polled") && (document.hidden || paused)) event.preventDefault();
});
document.addEventListener("htmx:sendError", () => { offline().hidden = false; });
document.addEventListener("htmx:afterOnLoad", () => { offline().hidden = true; });
document.addEventListener("htmx:afterSwap", () => { prepare(); });
document.addEventListener("change", (event) => {
  if (event.target.id === "pause") paused = event.target.checked;
});

// ── copying ──

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const call = button.closest(".call");
  await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
  call.querySelector(".copied").textContent = call.querySelector(".copied").dataset.copied;
});

// ── a slider says where it stands ──

document.addEventListener("input", (event) => {
  const output = event.target.type === "range" && document.querySelector(`output[for="${event.target.id}"]`);
  if (output) output.textContent = event.target.value;
});

// ── a file ──

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

let checks = 0;

async function check(form, whole) {
  const file = form.elements.file.files[0];
  if (!file) return say(form, form.dataset.choose);
  const number = (checks += 1);
  say(form, form.dataset.checking);
  const { part, sample } = whole ? { part: file, sample: false } : await beginning(file);
  const body = new FormData();
  body.append("file", part, file.name);
  const address = new URL(form.dataset.check, location.href);
  if (sample) address.searchParams.set("sample", "1");
  try {
    const answer = await fetch(address, { method: "POST", body });
    const other = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (number !== checks) return undefined; // another file was chosen meanwhile
    const report = other.getElementById("report");
    say(form, "");
    if (report) document.getElementById("report").replaceWith(report);
    else document.getElementById("main").replaceWith(other.getElementById("main"));
    prepare();
  } catch {
    say(form, form.dataset.lost);
  }
  return undefined;
}

function sendFile(form) {
  const file = form.elements.file.files[0];
  if (!file) return say(form, form.dataset.choose);
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
    say(form, "");
    const other = new DOMParser().parseFromString(request.responseText, "text/html");
    const report = other.getElementById("report");
    if (report) document.getElementById("report").replaceWith(report);
    else document.getElementById("main").replaceWith(other.getElementById("main"));
    prepare();
    return undefined;
  });
  request.open("POST", form.action);
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

// ── keyboard ──

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
  if (event.key === "/") {
    const field = document.querySelector("form[role=search] select, form[role=search] input");
    if (field) { event.preventDefault(); field.focus(); }
  } else if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll("table.rows a.id")];
    const place = links.indexOf(document.activeElement);
    const next = links[event.key === "j" ? place + 1 : Math.max(place - 1, 0)];
    if (next) next.focus();
  }
});

// ── what only makes sense with scripts ──

function prepare() {
  document.querySelectorAll("button.copy").forEach((button) => { button.hidden = !navigator.clipboard; });
  document.querySelectorAll(".pause").forEach((control) => { control.hidden = false; });
  document.querySelectorAll(".unscripted").forEach((advice) => { advice.hidden = true; });
  const focus = document.querySelector("[data-focus]");
  if (focus) focus.focus();
}

prepare();
