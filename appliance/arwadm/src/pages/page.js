// Fills the box's own page from its API.  Nothing is written as HTML: every text of the box goes into a text node.
"use strict";

const at = (id) => document.getElementById(id);
const sections = ["loading", "claim", "log-in", "status"];
/** The second secret of the log-in; see `GET /v1/session`. */
let csrf = "";
let user = "";
let permissions = [];
let info = {};
let last = {};
let timer = 0;
/** While a restart is awaited: the boot id that is to change. */
let awaited = null;

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(method, path, body) {
  const headers = {};
  if (method !== "GET") headers["X-ARINT-CSRF"] = csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, credentials: "same-origin", cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, "the box does not answer; is it running, and are you on its network?");
  }
  const document = await answer.json().catch(() => ({ message: `the box answered with status ${answer.status}` }));
  if (!answer.ok) throw new Refused(answer.status, document.message);
  return document;
}

function sentence(text) {
  const end = /[.!?…]$/.test(text) ? "" : ".";
  return text.charAt(0).toUpperCase() + text.slice(1) + end;
}

function say(text, kind = "bad") {
  const notice = at("notice");
  notice.hidden = !text;
  notice.className = `notice ${kind}`;
  notice.textContent = text ? sentence(text) : "";
  if (text) notice.scrollIntoView({ block: "nearest" });
}

function show(section) {
  const changed = at(section).hidden;
  for (const id of sections) at(id).hidden = id !== section;
  at("session").hidden = section !== "status";
  const first = { "claim": "claim-code", "log-in": at("log-in-user-field").hidden ? "log-in-password" : "log-in-user" }[section];
  if (changed && first) at(first).focus();
  else if (changed) at("main").focus();
}

/** Runs what a form or button asks for; keeps it from being sent twice, and says what went wrong. */
function doing(control, work) {
  return async (event) => {
    event.preventDefault();
    const button = control.matches("button") ? control : control.querySelector("[type=submit]");
    if (button.disabled) return;
    button.disabled = true;
    say("");
    try {
      await work();
    } catch (error) {
      if (error.status === 401 && !at("status").hidden) return start();
      say(error.message);
    } finally {
      button.disabled = false;
    }
  };
}

function pairs(list, entries) {
  const rows = [];
  for (const [name, value] of entries) {
    const lines = (Array.isArray(value) ? value : [value]).filter((line) => line !== undefined && line !== null && line !== "");
    if (!lines.length) continue;
    const term = document.createElement("dt");
    term.textContent = name;
    const text = document.createElement("dd");
    lines.forEach((line, index) => {
      if (index) text.append(document.createElement("br"));
      text.append(String(line));
    });
    rows.push(term, text);
  }
  list.replaceChildren(...rows);
}

const grouped = (hex) => hex.match(/.{1,4}/g).join(" ");
const size = (bytes) => bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
const moment = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 16);
function lasted(seconds) {
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : `${minutes} min`;
}
const may = (permission) => permissions.includes(permission);

async function start() {
  clearTimeout(timer);
  try {
    info = await call("GET", "/v1/claim");
  } catch (error) {
    say(error.message);
    timer = setTimeout(start, 3000);
    return;
  }
  say("");
  at("node").textContent = info.node;
  at("version").textContent = info.version;
  document.title = `${info.node} · ARINT`;
  at("compare").hidden = !info.fingerprint;
  at("fingerprint").textContent = info.fingerprint ? grouped(info.fingerprint) : "";
  if (!info.claimed) {
    if (info.seed_refused) say(info.seed_refused, "warn");
    return show("claim");
  }
  const session = await call("GET", "/v1/session").catch(() => null);
  if (session) return entered(session);
  const inRecovery = Boolean(info.recovery);
  at("log-in-title").textContent = inRecovery ? "Recovery system" : "Log in";
  at("log-in-why").hidden = !inRecovery;
  at("log-in-why").textContent = inRecovery
    ? sentence(`The box runs its recovery system: ${info.recovery}`) + " Log in with the code that it shows on its screen and serial console; from here you can install a bundle or reset the box."
    : "";
  at("log-in-user-field").hidden = inRecovery;
  at("log-in-user").value = inRecovery ? "recovery" : at("log-in-user").value;
  at("log-in-password-label").textContent = inRecovery ? "Code that the box shows" : "Password";
  show("log-in");
}

async function entered(session) {
  ({ csrf, user, permissions } = session);
  at("who").textContent = user;
  await refresh();
  show("status");
}

async function refresh() {
  clearTimeout(timer);
  let starting = false;
  /** What is not on this installation, not up yet, or not for this user, is left out of the page. */
  const absent = (error) => {
    if (error.status === 401) throw error;
    starting = starting || error.status >= 500;
    return null;
  };
  try {
    const [status, update, network] = await Promise.all([
      call("GET", "/v1/status"),
      call("GET", "/v1/system/update").catch(absent),
      call("GET", "/v1/system/network").catch(absent),
    ]);
    if (awaited && status.aros && status.aros.boot.boot_id !== awaited) {
      awaited = null;
      say("");
    }
    last = { status, update, network, starting };
    draw();
  } catch (error) {
    if (error.status === 401) return start();
    if (awaited === null) say(error.message);
  }
  const busy = awaited || (last.update && last.update.install && last.update.install.state === "running");
  timer = setTimeout(refresh, document.hidden ? 30000 : busy ? 1000 : 5000);
}

function draw() {
  const { status, update, network, starting } = last;
  const system = status.aros;
  const words = { ok: ["All is well", "good"], degraded: ["Needs attention", "warn"], down: ["Not working", "bad"] };
  const [text, kind] = words[status.health] || [status.health, "warn"];
  const health = at("health");
  health.className = `health ${kind}`;
  if (health.textContent !== text) health.textContent = text;
  const problems = status.problems.map((problem) => {
    const item = document.createElement("li");
    item.textContent = sentence(problem);
    return item;
  });
  at("problems").replaceChildren(...problems);
  at("node").textContent = system ? system.hostname : status.node;
  at("no-system").hidden = Boolean(system) || starting;
  for (const id of ["system-card", "network-card", "update-card", "power-card"]) at(id).hidden = !system;
  at("work-card").hidden = !status.arsrv;
  if (status.arsrv) {
    const core = status.arsrv;
    pairs(at("work"), [
      ["Services", core.services.length], ["Channels", core.channels.length],
      ["Connections", core.outgoing.length], ["Workers", core.workers.length],
      ["Requests", status.arldb ? status.arldb.requests : undefined],
    ]);
  }
  if (!system) return;
  const boot = system.boot;
  const confirmed = boot.confirmed ? "confirmed by function"
    : boot.slot === "recovery" ? "the recovery system"
    : `on trial${boot.tries_left === null || boot.tries_left === undefined ? "" : `, ${boot.tries_left} tries left`}`;
  pairs(at("system"), [
    ["Version", system.version], ["Slot", `${boot.slot}, ${confirmed}`], ["Board", system.board], ["Up", lasted(system.uptime_s)],
    ["Memory", `${size(system.memory.total - system.memory.available)} of ${size(system.memory.total)} used`],
    ...system.disks.map((disk) => [`Disk ${disk.label}`, `${size(disk.free)} of ${size(disk.total)} free${disk.health ? `, ${disk.health}` : ""}`]),
    ["Clock", system.clock.synchronized ? `set by ${system.clock.source || "a time source"}` : "not set by any source yet"],
    ["Encrypted", system.encrypted ? "yes" : "no"],
    ["Key", system.fingerprint ? grouped(system.fingerprint.slice(0, 16)) + " …" : ""],
  ]);
  drawNetwork(network);
  drawUpdate(update);
  at("power-card").hidden = !may("system");
  at("reset").hidden = boot.slot !== "recovery";
}

function drawNetwork(network) {
  if (!network) return pairs(at("network"), []);
  pairs(at("network"), [
    ...network.links.map((link) => [link.name, [link.state, ...link.addresses]]),
    ["Undone", network.last_rollback],
  ]);
  const trial = network.trial;
  at("trial").hidden = !trial;
  at("trial-keep").hidden = !may("system");
  if (trial) at("trial-text").textContent = `A change of the network is on trial and is undone in ${trial.seconds_left} s unless it is kept.`;
}

function drawUpdate(update) {
  if (!update) return;
  const cells = (texts) => {
    const row = document.createElement("tr");
    texts.forEach((text, index) => {
      const cell = document.createElement(index ? "td" : "th");
      if (!index) cell.scope = "row";
      cell.textContent = text;
      row.append(cell);
    });
    return row;
  };
  at("slots").replaceChildren(...update.slots.map((slot) => cells([
    slot.slot, slot.version || "–",
    [slot.state, slot.booted && "runs now", slot.primary && "starts next"].filter(Boolean).join(", "),
    slot.installed_ms ? moment(slot.installed_ms) : "–",
  ])));
  at("upload-form").hidden = !may("system");
  const install = update.install;
  if (uploading) return;
  const running = install && install.state === "running";
  at("progress").hidden = !running;
  if (running) progress(install.percent, `Installing: ${install.message}`);
  const installed = at("installed");
  installed.hidden = !install || running;
  if (install && !running) {
    const good = install.state === "installed";
    installed.className = `notice ${good ? "good" : "bad"}`;
    installed.textContent = good
      ? `Version ${install.version || ""} is installed${last.status.aros.version === install.version ? "." : "; it runs after the next start."}`
      : sentence(`the installation failed: ${install.error || install.message}`);
  }
}

let uploading = false;
let told = "";
function progress(percent, text) {
  at("progress").hidden = false;
  at("progress-bar").value = percent;
  at("progress-text").textContent = `${text} (${percent} %)`;
  // A screen reader hears every tenth.
  const step = `${text} ${Math.floor(percent / 10) * 10} %`;
  if (step !== told) at("progress-said").textContent = told = step;
}

/** `fetch` tells nothing of an upload's progress; this does. */
function upload(file) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", "/v1/system/update/bundle");
    request.setRequestHeader("X-ARINT-CSRF", csrf);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      const percent = Math.floor(100 * event.loaded / (event.total || file.size || 1));
      progress(percent, percent < 100 ? `Uploading ${size(event.loaded)} of ${size(file.size)}` : "The box checks the bundle");
    };
    request.onload = () => request.status < 300
      ? resolve(request.response)
      : reject(new Refused(request.status, request.response ? request.response.message : `the box answered with status ${request.status}`));
    request.onerror = () => reject(new Refused(0, "the upload broke off; try again"));
    request.send(file);
  });
}

function ask({ title, text, yes, danger, name }) {
  at("ask-title").textContent = title;
  at("ask-text").textContent = text;
  at("ask-yes").textContent = yes;
  at("ask-yes").className = danger ? "danger" : "";
  at("ask-name-field").hidden = !name;
  at("ask-name").required = Boolean(name);
  at("ask-name").value = "";
  const dialog = at("ask");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

function awaitRestart(text) {
  awaited = (last.status.aros && last.status.aros.boot.boot_id) || "?";
  say(text, "warn");
  refresh();
}

function passwordHints() {
  const password = at("claim-password"), again = at("claim-again");
  const length = [...password.value].length;
  const hint = at("claim-password-hint");
  const fits = length >= 12;
  hint.textContent = !length ? "12 characters or more; a few words in a row are good."
    : fits ? `${length} characters: long enough.` : `${length} of at least 12 characters.`;
  hint.className = `hint ${!length ? "" : fits ? "good" : "bad"}`;
  const differs = again.value !== "" && again.value !== password.value;
  at("claim-again-hint").textContent = differs ? "The two passwords differ." : "";
  at("claim-again-hint").className = "hint bad";
  again.setAttribute("aria-invalid", String(differs));
  return fits && !differs && again.value !== "";
}

at("claim-password").addEventListener("input", passwordHints);
at("claim-again").addEventListener("input", passwordHints);
at("claim-form").addEventListener("submit", doing(at("claim-form"), async () => {
  if (!passwordHints()) {
    const fits = [...at("claim-password").value].length >= 12;
    at(fits ? "claim-again" : "claim-password").focus();
    throw new Refused(0, fits ? "the two passwords differ" : "the password needs 12 characters or more");
  }
  const name = at("claim-user").value, password = at("claim-password").value;
  const made = await call("POST", "/v1/claim", { code: at("claim-code").value, user: name, password });
  const session = await call("POST", "/v1/session", { user: name, password });
  at("claim-form").reset();
  await entered(session);
  // The claim gives a token for programs; this page has a log-in of its own.
  await call("DELETE", `/v1/tokens/${encodeURIComponent(made.name)}`);
  say("the box is yours", "good");
}));
at("log-in-form").addEventListener("submit", doing(at("log-in-form"), async () => {
  const session = await call("POST", "/v1/session", { user: at("log-in-user").value, password: at("log-in-password").value });
  at("log-in-password").value = "";
  await entered(session);
}));
at("log-out").addEventListener("click", doing(at("log-out"), async () => {
  clearTimeout(timer);
  await call("DELETE", "/v1/session");
  csrf = user = "";
  last = {};
  await start();
}));
at("trial-keep").addEventListener("click", doing(at("trial-keep"), async () => {
  const done = await call("POST", "/v1/system/network/confirm", {});
  say((done && done.message) || "the new network is kept", "good");
  await refresh();
}));
at("upload-form").addEventListener("submit", doing(at("upload-form"), async () => {
  const file = at("bundle").files[0];
  uploading = true;
  at("install-form").hidden = true;
  at("installed").hidden = true;
  try {
    progress(0, `Uploading ${file.name}`);
    const bundle = await upload(file);
    pairs(at("bundle-info"), [["Version", bundle.version], ["For", bundle.compatible], ["Size", size(bundle.bytes)], ["SHA-256", grouped(bundle.sha256)]]);
    at("install-form").hidden = false;
    at("install-form").querySelector("button").focus();
    at("upload-form").reset();
  } finally {
    uploading = false;
    at("progress").hidden = true;
  }
}));
at("install-form").addEventListener("submit", doing(at("install-form"), async () => {
  const reboot = at("install-reboot").checked;
  await call("POST", "/v1/system/update/install", { allow_downgrade: at("install-downgrade").checked, reboot });
  at("install-form").hidden = true;
  if (reboot) awaited = last.status.aros.boot.boot_id;
  await refresh();
}));
for (const button of document.querySelectorAll("[data-ask]")) {
  button.addEventListener("click", doing(button, async () => {
    const action = button.dataset.ask;
    const host = last.status.aros.hostname;
    const texts = {
      reboot: { title: `Restart ${host}?`, text: "Requests are answered to the end; then the box is away for a minute or so.", yes: "Restart" },
      power_off: { title: `Switch ${host} off?`, text: "Somebody has to switch it on again.", yes: "Switch off", danger: true },
    };
    if (!await ask(texts[action])) return;
    await call("POST", "/v1/system/power", { action });
    if (action === "reboot") awaitRestart("the box restarts; this page goes on when it is back");
    else say("the box switches itself off", "warn");
  }));
}
at("reset").addEventListener("click", doing(at("reset"), async () => {
  const host = last.status.aros.hostname;
  const sure = await ask({
    title: `Reset ${host} to factory state?`, name: true, danger: true, yes: "Destroy everything",
    text: `The keys of its disks are destroyed: configuration, services, users and data are gone for good.  The host name is ${host}.`,
  });
  if (!sure) return;
  const answer = await call("POST", "/v1/system/factory-reset", { hostname: at("ask-name").value });
  awaitRestart(answer.message);
}));
at("ask-no").addEventListener("click", () => at("ask").close(""));
at("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  at("ask").close("yes");
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !at("status").hidden) refresh();
});
start();
