// The page of echo_server.py: it sends what the user types and lists the server's answers.
//
// It is the smallest page that also notices a connection that died without notice: an answer that is overdue
// shows it. Left out: connecting again by itself, and sending a lost message again. The user's next message
// opens a new connection.

const TIMEOUT = 10_000; // ms for the connection to open, or for the next answer to arrive

// The address is relative to the page, so that the echo also works behind a proxy that adds a path.
const ECHO_URL = new URL('echo', document.baseURI);
ECHO_URL.protocol = ECHO_URL.protocol === 'https:' ? 'wss:' : 'ws:';

const message = document.getElementById('message');
const status = document.getElementById('status');
const answers = document.getElementById('answers');
let timer = null; // runs while the server owes something
let answersOwed = 0;
let socket = connect();

// A dead socket can take minutes to notice its end. What it tells after it has been replaced is ignored.
function connect() {
  const newSocket = new WebSocket(ECHO_URL.href);
  newSocket.addEventListener('open', () => {
    if (socket === newSocket) handleOpen();
  });
  newSocket.addEventListener('message', ({ data }) => {
    if (socket === newSocket) handleAnswer(data);
  });
  newSocket.addEventListener('close', ({ reason }) => {
    if (socket === newSocket) handleLoss(reason);
  });
  status.textContent = 'Connecting…';
  answersOwed = 0;
  startTimer();
  return newSocket;
}

function handleOpen() {
  status.textContent = 'Connected';
  stopTimer();
}

function handleAnswer(text) {
  answersOwed = Math.max(0, answersOwed - 1);
  stopTimer();
  if (answersOwed > 0) startTimer();
  const answer = document.createElement('li');
  answer.textContent = text;
  answers.append(answer);
}

function handleLoss(reason) {
  stopTimer();
  socket = null;
  const because = reason ? `: ${reason}` : '';
  status.textContent = `Connection lost${because}. Your next message opens a new one.`;
}

// A timer that is running goes on. If each message started it again, somebody who sends again and again would
// never learn that the connection is dead.
function startTimer() {
  timer ??= setTimeout(() => {
    const deadSocket = socket;
    handleLoss('the server did not answer');
    deadSocket.close();
  }, TIMEOUT);
}

function stopTimer() {
  clearTimeout(timer);
  timer = null;
}

function send(text) {
  socket.send(text);
  answersOwed += 1;
  startTimer();
}

document.getElementById('send').addEventListener('submit', (event) => {
  event.preventDefault();
  if (socket === null || socket.readyState > WebSocket.OPEN) {
    stopTimer();
    socket = connect();
  }
  const text = message.value;
  if (socket.readyState === WebSocket.OPEN) send(text);
  else socket.addEventListener('open', () => send(text), { once: true }); // never sent if it never opens
  message.select();
});
