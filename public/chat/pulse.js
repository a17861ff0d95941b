// Calls `beat` every few seconds, also while nobody looks: browsers slow the timers of a hidden page down
// to once a minute, but not those of its workers.

const EVERY = 2_500; // ms

export function startPulse(beat) {
  setInterval(beat, EVERY); // for browsers that let the page have no worker
  try {
    const worker = new Worker('pulse_worker.js');
    worker.onmessage = () => beat();
    worker.postMessage(EVERY);
  } catch (error) {
    console.warn('no worker:', error);
  }
}
