// The smallest page that talks to echo_server.py.

const address = new URL('echo', document.baseURI); // beside the page, wherever a proxy has put it
address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
const message = document.getElementById('message');
const status = document.getElementById('status');
const answers = document.getElementById('answers');
let socket = connect();

function connect() {
  const opening = new WebSocket(address);
  status.textContent = 'connecting…';
  opening.addEventListener('open', () => {
    status.textContent = 'connected';
  });
  opening.addEventListener('close', ({ reason }) => {
    status.textContent = `connection lost${reason ? `: ${reason}` : ''}. The next message opens a new one`;
  });
  opening.addEventListener('message', ({ data }) => {
    const answer = document.createElement('li');
    answer.textContent = data;
    answers.append(answer);
  });
  return opening;
}

document.getElementById('send').addEventListener('submit', (event) => {
  event.preventDefault();
  if (socket.readyState > WebSocket.OPEN) socket = connect();
  const text = message.value;
  if (socket.readyState === WebSocket.OPEN) socket.send(text);
  else socket.addEventListener('open', ({ target }) => target.send(text), { once: true });
  message.select();
});
