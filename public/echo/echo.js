// The smallest page that talks to echo_server.py.

const PATIENCE = 10_000; // ms to open or to answer; a connection can die without a word
const ADDRESS = new URL('echo', document.baseURI); // beside the page, wherever a proxy has put it
ADDRESS.protocol = ADDRESS.protocol === 'https:' ? 'wss:' : 'ws:';

const message = document.getElementById('message');
const status = document.getElementById('status');
const answers = document.getElementById('answers');
let overdue = null; // a timer that runs while the server owes something
let owed = 0; // answers
let socket = connect();

function connect() {
  const opening = new WebSocket(ADDRESS.href);
  status.textContent = 'connecting…';
  owed = 0;
  expectSomething();
  opening.addEventListener('open', () => {
    if (socket !== opening) return;
    status.textContent = 'connected';
    stopExpecting();
  });
  opening.addEventListener('close', ({ reason }) => {
    if (socket === opening) showLoss(reason); // a dead one may notice its end minutes later
  });
  opening.addEventListener('message', ({ data }) => {
    if (socket !== opening) return;
    owed = Math.max(0, owed - 1);
    stopExpecting();
    if (owed > 0) expectSomething();
    const answer = document.createElement('li');
    answer.textContent = data;
    answers.append(answer);
  });
  return opening;
}

// A timer that runs already is left alone, or somebody who sends again and again would never be told.
function expectSomething() {
  overdue ??= setTimeout(() => {
    const dead = socket;
    showLoss('no answer');
    dead.close();
  }, PATIENCE);
}

function stopExpecting() {
  clearTimeout(overdue);
  overdue = null;
}

function showLoss(reason) {
  stopExpecting();
  socket = null;
  status.textContent = `connection lost${reason ? `: ${reason}` : ''}. The next message opens a new one`;
}

function send(text) {
  socket.send(text);
  owed += 1;
  expectSomething();
}

document.getElementById('send').addEventListener('submit', (event) => {
  event.preventDefault();
  if (socket === null || socket.readyState > WebSocket.OPEN) {
    stopExpecting();
    socket = connect();
  }
  const text = message.value;
  if (socket.readyState === WebSocket.OPEN) send(text);
  else socket.addEventListener('open', () => send(text), { once: true }); // lost where it never opens
  message.select();
});
