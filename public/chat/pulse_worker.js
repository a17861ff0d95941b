// See pulse.js.

const EVERY = 2_500; // ms

setInterval(() => postMessage('beat'), EVERY);
