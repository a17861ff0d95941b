// The log: it adds a line for each thing that happens, and follows its end while the reader is there.
//
// A line that comes while somebody reads further up moves nothing; a button leads to it. Old lines leave the page.
// Left out: what a line shows (line.js).

import { makeLine } from './line.js';

const MAX_LINES = 500;
const NEAR = 40; // px; whoever is so near to the end follows it

const log = document.getElementById('log');
const lines = document.getElementById('lines');
const toNewest = document.getElementById('to-newest');
let isFollowing = true;

// Adds a line, see makeLine.
export function addLine(line) {
  isFollowing = leftToEnd() < NEAR; // a scroll event may be late
  lines.append(makeLine(line));
  while (lines.children.length > MAX_LINES) removeOldest();
  if (isFollowing) scrollToEnd();
  else toNewest.hidden = false;
}

export function clearLog() {
  lines.replaceChildren();
  toNewest.hidden = true;
}

function removeOldest() {
  const oldest = lines.firstElementChild;
  if (oldest.contains(document.activeElement)) log.focus();
  const height = oldest.offsetHeight;
  oldest.remove();
  log.scrollTop -= height; // what is being read stays where it is
}

function leftToEnd() {
  return log.scrollHeight - log.clientHeight - log.scrollTop;
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}

log.addEventListener('scroll', () => {
  isFollowing = leftToEnd() < NEAR;
  if (isFollowing) toNewest.hidden = true;
});
// The window, or what stands below the log, may become larger or smaller.
new ResizeObserver(() => {
  if (isFollowing) scrollToEnd();
}).observe(log);
toNewest.addEventListener('click', () => {
  scrollToEnd();
  log.focus();
});
