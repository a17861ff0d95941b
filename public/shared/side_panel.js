// What stands at the side of the page on a wide screen, and on a narrow one is opened by a button and then covers
// what is behind it.
//
// Left out: what is in it, and from which width on it is always shown. The page's style sheet says that, and shows
// the panel on a narrow screen while it has the class `open`.

export class SidePanel {
  #panel;
  #button;
  #closeButton;

  // `widths` is the media query of the screens on which the panel is always shown. `fallback` gets the focus when
  // the button to close the panel, which had it, is hidden because the screen was turned.
  constructor({ panel, button, closeButton, widths, fallback }) {
    this.#panel = panel;
    this.#button = button;
    this.#closeButton = closeButton;
    button.addEventListener('click', () => (this.isOpen ? this.close() : this.#open()));
    closeButton.addEventListener('click', () => this.close());
    document.addEventListener('keydown', ({ key }) => {
      if (key === 'Escape' && this.isOpen) this.close();
    });
    // It covers what is behind it, so it goes when somebody turns to that.
    const closeBehind = ({ target }) => {
      if (!panel.contains(target) && !button.contains(target)) this.#show(false);
    };
    document.addEventListener('pointerdown', closeBehind);
    document.addEventListener('focusin', closeBehind);
    matchMedia(widths).addEventListener('change', () => {
      if (this.isOpen) fallback.focus();
      this.#show(false);
    });
  }

  get isOpen() {
    return this.#panel.classList.contains('open');
  }

  close() {
    this.#show(false);
    this.#button.focus();
  }

  #open() {
    this.#show(true);
    this.#closeButton.focus();
  }

  #show(isOpen) {
    this.#panel.classList.toggle('open', isOpen);
    this.#button.ariaExpanded = String(isOpen);
  }
}
