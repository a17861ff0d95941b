// The things to try: messages worth a look, a ping, fragments, a close, and another route. On a wide screen they stand beside
// the log, on a narrow one a button opens them.
//
// Left out: what each of them does (echo.js), and the form to close (close_form.js).

import { makeElement, makeText } from './elements.js';
import { setPlainText, setText } from './language.js';
import { SidePanel } from './side_panel.js';
import { ROUTES, sizeOf } from './wire.js';

const MAX_PING = 125; // bytes (5.5)

// What is sent, and under `example_…` and `exampleNote_…` the texts that say what there is to see.
const EXAMPLES = [
  { name: 'characters', make: () => 'aé你🤖' },
  { name: 'nothing', make: () => '' },
  { name: 'long', make: () => 'x'.repeat(126) },
  { name: 'longer', make: () => 'x'.repeat(65_536) },
  { name: 'binary', make: () => new Uint8Array([0x00, 0x7f, 0x80, 0xff]) },
  { name: 'slashes', make: () => '//help' },
  { name: 'help', make: () => '/help', isCommand: true },
];

const byId = (id) => document.getElementById(id);
const panel = new SidePanel({
  panel: byId('panel'),
  button: byId('show-panel'),
  closeButton: byId('close-panel'),
  widths: '(min-width: 56.01rem)', // as in echo.css
  fallback: byId('log'),
});

// `actions` has send(data) and changeRoute(), which is called when another of ROUTES is chosen.
export function preparePanel({ send, changeRoute }) {
  byId('examples').append(...EXAMPLES.map((example) => makeExample(example, send)));
  preparePing(send);
  prepareFragments(send);
  prepareRoutes(changeRoute);
}

// Shows the log again after something was tried, where the panel covers it.
export function revealLog() {
  if (panel.isOpen) panel.close();
}

function makeExample({ name, make, isCommand = false }, send) {
  const item = makeElement('li', isCommand ? 'for-commands' : '');
  const button = makeText('button', '', { key: `example_${name}` });
  button.type = 'button';
  const note = makeText('p', 'note', { key: `exampleNote_${name}` });
  note.id = `example-${name}`;
  button.setAttribute('aria-describedby', note.id);
  button.addEventListener('click', () => {
    send(make());
    revealLog();
  });
  item.append(button, note);
  return item;
}

function preparePing(send) {
  const payload = byId('ping-payload');
  const error = byId('ping-error');
  byId('ping').addEventListener('submit', (event) => {
    event.preventDefault();
    const size = sizeOf(payload.value);
    payload.ariaInvalid = String(size > MAX_PING);
    if (size > MAX_PING) {
      setText(error, 'pingTooLong', { n: size });
      payload.focus();
      return;
    }
    setPlainText(error, '');
    send(payload.value ? `/ping ${payload.value}` : '/ping');
    revealLog();
  });
}

function prepareFragments(send) {
  byId('fragments').addEventListener('submit', (event) => {
    event.preventDefault();
    send(`/fragments ${byId('parts').value}`);
    revealLog();
  });
}

function prepareRoutes(changeRoute) {
  const select = byId('route');
  select.append(...Object.keys(ROUTES).map((route) => new Option(`/${route}`, route)));
  const show = (route) => {
    setText(byId('route-note'), `route_${route}`);
    document.body.classList.toggle('no-commands', !ROUTES[route].hasCommands);
  };
  select.addEventListener('change', () => {
    show(select.value);
    changeRoute();
  });
  show(select.value);
}
