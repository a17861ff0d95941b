// The smallest page that talks to echo_server.py.

const PATIENCE = 10_000; // ms for an answer; a connection can die without a word
const ADDRESS = new URL('echo', document.baseURI); // beside the page, wherever a proxy has put it
ADDRESS.protocol = ADDRESS.protocol === 'https:' ? 'wss:' : 'ws:';

const message = document.getElementById('message');
const status = document.getElementById('status');
const answers = document.getElementById('answers');
let overdue = null;
let socket = connect();

function connect() {
  const opening = new WebSocket(ADDRESS.href);
  status.textContent = 'connecting…';
  opening.addEventListener('open', () => {
    status.textContent = 'connected';
  });
  opening.addEventListener('close', ({ reason }) => {
    if (socket === opening) showLoss(reason); // a dead one may notice its end minutes later
  });
  opening.addEventListener('message', ({ data }) => {
    clearTimeout(overdue);
    const answer = document.createElement('li');
    answer.textContent = data;
    answers.append(answer);
  });
  return opening;
}

function showLoss(reason) {
  clearTimeout(overdue);
  status.textContent = `connection lost${reason ? `: ${reason}` : ''}. The next message opens a new one`;
}

function send(text) {
  socket.send(text);
  clearTimeout(overdue);
  overdue = setTimeout(() => {
    socket.close();
    showLoss('no answer');
  }, PATIENCE);
}

document.getElementById('send').addEventListener('submit', (event) => {
  event.preventDefault();
  if (socket.readyState > WebSocket.OPEN) socket = connect();
  const text = message.value;
  if (socket.readyState === WebSocket.OPEN) send(text);
  else socket.addEventListener('open', () => send(text), { once: true });
  message.select();
});
