// The frames of a line: a button that shows them, one at a time, and leads from one to the next. While the server has
// told none there is nothing. Left out: what a frame looks like (frame_view.js).

import { makeButton, makeElement } from './elements.js';
import { makeFrameView } from './frame_view.js';
import { setPlainText, setText } from './language.js';

// Returns the element for a FrameList (frames.js).
export function makeFramePager(list) {
  const pager = new FramePager(list);
  list.onChange = () => pager.update();
  pager.update();
  return pager.element;
}

class FramePager {
  element = makeElement('div', 'frames');

  #list;
  #place = 1; // of the frame that is shown
  #isOpen = false;
  #toggle = makeButton('show-frames', () => this.#setOpen(!this.#isOpen));
  #before = makeButton('quiet', () => this.#turn(-1));
  #position = makeElement('span', 'note position');
  #after = makeButton('quiet', () => this.#turn(1));
  #view = makeElement('div', 'view');

  constructor(list) {
    this.#list = list;
    setText(this.#before, 'frameBefore');
    setText(this.#after, 'frameAfter');
    const bar = makeElement('div', 'bar');
    bar.append(this.#toggle, this.#before, this.#position, this.#after);
    this.element.append(bar, this.#view);
  }

  // There may be more frames than before.
  update() {
    const { total } = this.#list;
    const hasSeveral = this.#isOpen && total > 1;
    this.element.hidden = total === 0;
    this.#toggle.ariaExpanded = String(this.#isOpen);
    if (this.#isOpen) setText(this.#toggle, 'hideFrames');
    else setText(this.#toggle, total > 1 ? 'showFrames' : 'showFrame', { n: total });
    for (const part of [this.#before, this.#position, this.#after]) part.hidden = !hasSeveral;
    if (hasSeveral) setText(this.#position, 'framePosition', { n: this.#place, total });
    else setPlainText(this.#position, '');
    const index = this.#indexOfShown();
    this.#before.disabled = index === 0;
    this.#after.disabled = index === this.#list.frames.length - 1;
  }

  #setOpen(isOpen) {
    this.#isOpen = isOpen;
    this.#show();
    if (isOpen) this.element.scrollIntoView({ block: 'start' });
  }

  #turn(step) {
    this.#place = this.#list.frames[this.#indexOfShown() + step].place;
    this.#show();
    const isAtEnd = document.activeElement === document.body; // a button that is disabled loses the focus
    if (isAtEnd) (step > 0 ? this.#before : this.#after).focus();
  }

  // The one that is shown may have had to leave; then the next one that is there takes its place.
  #indexOfShown() {
    return Math.max(0, this.#list.frames.findIndex(({ place }) => place >= this.#place));
  }

  #show() {
    this.update();
    const shown = this.#list.frames[this.#indexOfShown()];
    this.#view.replaceChildren(...(this.#isOpen ? [makeFrameView(shown.frame)] : []));
  }
}
