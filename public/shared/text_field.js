// A field of several lines in which a message is written: Enter sends it, and it grows with its text.
//
// Left out: what is done with the text; each page has its own composer.js.

// Lets Enter submit the field's form, and Shift+Enter begin a new line.
export function submitOnEnter(field) {
  field.addEventListener('keydown', (event) => {
    // Enter may also pick a word in an input method. Safari says so by the key code 229 alone.
    const isInputMethod = event.isComposing || event.keyCode === 229;
    if (event.key !== 'Enter' || event.shiftKey || isInputMethod) return;
    event.preventDefault();
    field.form.requestSubmit();
  });
}

// Replaces a part of what a field holds, as if it had been typed: the browser's undo brings it back. Then the
// cursor is behind it.
export function replaceText(field, text, start, end) {
  field.focus();
  field.setSelectionRange(start, end);
  // The command is deprecated, but whatever else changes a field makes the browser forget how to undo.
  if (document.execCommand('insertText', false, text)) return;
  field.setRangeText(text, start, end, 'end');
  field.dispatchEvent(new Event('input', { bubbles: true }));
}

// For browsers in which the style sheet cannot say that a field grows with its text. Call it after each change.
export function grow(field) {
  if (CSS.supports('field-sizing', 'content')) return;
  field.style.height = '';
  const borders = field.offsetHeight - field.clientHeight;
  field.style.height = `${field.scrollHeight + borders}px`;
}
