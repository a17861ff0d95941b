// Answers each number of milliseconds that pulse.js sends with a beat after every so many.

onmessage = ({ data: interval }) => setInterval(() => postMessage('beat'), interval);
