// The lines of the server's parser that read a field of a frame, as the server that runs has them (playground/parser_lines.py).

import { makeElement, makeText } from './elements.js';
import { setAttribute } from './language.js';

let passages = null; // a promise of them, by field

// Returns the passages for a field; none where the server does not tell them.
export async function findPassages(field) {
  passages ??= fetchPassages();
  const found = await passages;
  return found[field] ?? [];
}

async function fetchPassages() {
  try {
    const answer = await fetch('parser-lines.json');
    return answer.ok ? await answer.json() : {};
  } catch {
    passages = null; // the server may be back when the next field is chosen
    return {};
  }
}

// Returns elements that show a passage: where it stands, and its lines with their numbers.
export function showPassage({ file, function: name, first, lines, reading }) {
  const last = first + lines.length - 1;
  const title = makeText('p', 'title', { key: 'passage', file, function: name, first: String(first), last: String(last) });
  const block = makeElement('pre', 'passage code');
  block.dir = 'ltr';
  block.tabIndex = 0; // it may be scrolled by keys
  block.setAttribute('role', 'group');
  setAttribute(block, 'aria-label', 'passageLabel', { file, function: name });
  const indent = Math.min(...lines.filter((line) => line.trim()).map((line) => line.search(/\S/)));
  block.append(...lines.map((line, index) => showLine(line.slice(indent), first + index, reading)));
  return [title, block];
}

function showLine(text, number, reading) {
  const line = makeElement(reading.includes(number) ? 'mark' : 'span', 'source');
  const count = makeElement('span', 'number', String(number));
  count.ariaHidden = 'true';
  line.append(count, `${text}\n`);
  return line;
}
