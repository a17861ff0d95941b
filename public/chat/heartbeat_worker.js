// The worker of heartbeat.js: it receives an interval in milliseconds and posts a message each time that this
// interval has passed. It leaves out everything else, and cannot be stopped: it ends with its page.

onmessage = ({ data: interval }) => setInterval(() => postMessage('beat'), interval);
