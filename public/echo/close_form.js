// The form to close the connection: by whom, with which code, and why. It says what the code means.
//
// Left out: closing (echo.js).

import { KNOWN_CODES, SENT_BY_SERVERS, describeCode, refuseFromPage } from './close_codes.js';
import { setPlainText, setText } from './language.js';
import { makeText } from './elements.js';
import { ROUTES, sizeOf } from './wire.js';

const byId = (id) => document.getElementById(id);
const form = byId('close');
const code = byId('close-code');
const reason = byId('close-reason');

// `actions` has closeFromPage(code, reason), where code may be null, and closeFromServer(code, reason). Each returns
// whether there was a connection to close.
export function prepareCloseForm({ closeFromPage, closeFromServer }) {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    submit(closeFromPage, closeFromServer);
  });
  form.addEventListener('input', update);
  byId('route').addEventListener('change', update);
  form.reset(); // a browser may bring earlier values back
  update();
}

function submit(closeFromPage, closeFromServer) {
  const written = code.value.trim();
  const number = written === '' ? null : Number(written);
  const byServer = isByServer();
  const error = checkNumber(written, byServer) ?? (byServer ? null : refuseFromPage(number, sizeOf(reason.value)));
  const close = byServer ? closeFromServer : closeFromPage;
  show(error ?? (close(number, reason.value) ? null : { key: 'nothingToClose' }));
}

function checkNumber(written, byServer) {
  if (written === '') return byServer ? { key: 'codeMissing' } : null;
  return /^\d+$/.test(written) ? null : { key: 'codeNotNumber' };
}

function show(error) {
  const isReason = error?.key.startsWith('reason') ?? false;
  reason.ariaInvalid = String(isReason);
  code.ariaInvalid = String(error?.key.startsWith('code') ?? false);
  if (error) setText(byId('close-error'), error.key, error);
  else setPlainText(byId('close-error'), '');
  if (code.ariaInvalid === 'true') code.focus();
  if (isReason) reason.focus();
}

function isByServer() {
  const server = form.querySelector('[value=server]');
  const { hasCommands } = ROUTES[byId('route').value];
  server.disabled = !hasCommands;
  if (!hasCommands) form.querySelector('[value=page]').checked = true;
  return server.checked;
}

function update() {
  const byServer = isByServer();
  const { hasCommands } = ROUTES[byId('route').value];
  setText(byId('who-note'), byServer ? 'whoServer' : hasCommands ? 'whoPage' : 'whoPageOnly');
  showMeaning(code.value.trim());
  offerCodes(byServer ? SENT_BY_SERVERS : [1000]);
  show(null);
}

function showMeaning(written) {
  const { name, meaning } = describeCode(written === '' ? 1005 : Number(written));
  setText(byId('close-meaning'), 'nameAndMeaning', { name: { key: name }, meaning: { key: meaning } });
}

function offerCodes(codes) {
  const options = codes.filter((each) => KNOWN_CODES.includes(each)).map((each) => {
    const option = makeText('option', '', { key: `name${each}` });
    option.value = String(each);
    return option;
  });
  byId('close-codes').replaceChildren(...options);
}
