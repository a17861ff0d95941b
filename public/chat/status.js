// The state of the connection, in words and as a dot, with a countdown to the next attempt to connect.
//
// Left out: the connection itself (connection.js).

import { setPlainText, setText } from './language.js';

const status = document.getElementById('status');
const countdown = document.getElementById('countdown');
const note = document.getElementById('offline-note');
let timer = null;

// Shows a state with its details, see the listener's onState in connection.js.
export function showState(name, { reason, until } = {}) {
  document.body.dataset.state = name;
  setText(status, reason ? `${name}Because` : name, { reason });
  note.hidden = name !== 'waiting';
  showCountdown(name === 'waiting' ? until : null);
}

// Counts the seconds until a time, in ms since 1970; null shows nothing. The countdown is beside the status
// and hidden from screen readers, which would read each second of it aloud.
function showCountdown(until) {
  const showSeconds = () => {
    const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1_000));
    setText(countdown, 'countdown', { seconds });
  };
  clearInterval(timer);
  setPlainText(countdown, '');
  if (until === null) return;
  showSeconds();
  timer = setInterval(showSeconds, 1_000);
}
