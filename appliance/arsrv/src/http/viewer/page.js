'use strict';
// Shows /openapi.json.  Everything of the document goes into the page as text, never as markup.

const by = (id) => document.getElementById(id);

function made(tag, text, cls) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (cls) node.className = cls;
  return node;
}

function credentials() {
  const headers = {};
  const key = by('key').value;
  if (by('user').value) {
    const bytes = new TextEncoder().encode(by('user').value + ':' + by('password').value);
    headers.Authorization = 'Basic ' + btoa(String.fromCharCode(...bytes));
  } else if (key && by('header').value) {
    headers[by('header').value] = key;
  } else if (key) {
    headers.Authorization = 'Bearer ' + key;
  }
  return headers;
}

function schemaOf(content) {
  for (const [media, body] of Object.entries(content || {})) return [media, body.schema];
  return [undefined, undefined];
}

function rows(parameters) {
  const table = made('table');
  const head = made('tr');
  for (const title of ['Parameter', 'Where', 'Type', 'Needed']) head.append(made('th', title));
  table.append(head);
  for (const parameter of parameters) {
    const row = made('tr');
    row.append(made('td', parameter.name), made('td', parameter.in));
    row.append(made('td', (parameter.schema && parameter.schema.type) || 'any'));
    row.append(made('td', parameter.required ? 'yes' : 'no'));
    table.append(row);
  }
  return table;
}

function part(into, title, media, schema) {
  into.append(made('h3', media ? title + ' (' + media + ')' : title));
  if (schema !== undefined) into.append(made('pre', JSON.stringify(schema, null, 2)));
}

function operation(path, method, about) {
  const box = made('details');
  const line = made('summary');
  line.append(made('span', method.toUpperCase(), 'method'), made('span', path, 'path'));
  if (about.summary) line.append(made('span', about.summary, 'about'));
  box.append(line);
  if (about.description) {
    for (const text of about.description.split('\n\n')) box.append(made('p', text));
  }
  const asked = (about.security || []).map((one) => Object.keys(one).join(' and '));
  box.append(made('p', asked.length ? 'Credentials: ' + asked.join(', or ') : 'No credentials are named.'));
  if (about.parameters) box.append(rows(about.parameters));
  if (about.requestBody) part(box, 'Request', ...schemaOf(about.requestBody.content));
  const answer = about.responses && about.responses['200'];
  if (answer) part(box, 'Answer', ...schemaOf(answer.content));
  box.dataset.text = [path, method, about.operationId, about.summary].join(' ').toLowerCase();
  return box;
}

function show(document_) {
  const list = by('list');
  list.replaceChildren();
  for (const [path, operations] of Object.entries(document_.paths)) {
    for (const [method, about] of Object.entries(operations)) list.append(operation(path, method, about));
  }
  by('note').textContent = list.children.length + ' operations';
}

async function load() {
  by('note').textContent = 'loading';
  try {
    const answer = await fetch('/openapi.json', { headers: credentials(), cache: 'no-store', credentials: 'omit' });
    if (answer.ok) return show(await answer.json());
    by('list').replaceChildren();
    by('note').textContent = answer.status === 401
      ? 'Enter the credentials of a channel: you see what they open.'
      : 'The box answered ' + answer.status + '.';
  } catch (err) {
    by('note').textContent = 'The box does not answer.';
  }
}

by('who').addEventListener('submit', (event) => { event.preventDefault(); load(); });
by('find').addEventListener('input', () => {
  const wanted = by('find').value.toLowerCase();
  for (const box of by('list').children) box.hidden = !box.dataset.text.includes(wanted);
});
// Looking without credentials is of use only where everybody may read.
fetch('/openapi.json', { method: 'HEAD', credentials: 'omit' })
  .then((answer) => { if (answer.ok) load(); else by('note').textContent = 'Enter the credentials of a channel: you see what they open.'; })
  .catch(() => {});
