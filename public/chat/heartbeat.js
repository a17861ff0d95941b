// Calls a function every few seconds, even while nobody looks at the page.
//
// Browsers slow the timers of a hidden page down to once a minute, but not those of its workers. So a worker
// keeps the time, see heartbeat_worker.js. Left out: what is done at each beat; that is up to the caller.

const INTERVAL = 2_500; // ms; short beside the timeouts in connection.js, which are checked at each beat

export function startHeartbeat(onBeat) {
  setInterval(onBeat, INTERVAL); // for browsers that do not allow the page a worker
  try {
    const worker = new Worker('heartbeat_worker.js');
    worker.onmessage = () => onBeat();
    worker.postMessage(INTERVAL);
  } catch (error) {
    console.warn('The page runs without a worker:', error);
  }
}
