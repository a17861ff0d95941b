// A Close frame that nobody has told the page of, as the page knows that it must have been.
//
// Behind a Close nothing is sent any more (5.5.1), so that the server can't tell of the last frames. But the page knows
// code and reason: of its own Close because it has chosen them, and of the server's because the browser says them. All
// other bits follow from section 5, but for the masking key, and with it the payload as it travelled.

import { encodeHex } from './hex.js';
import { sizeOf } from './wire.js';

// Returns the frame in the form of playground/frame_events.py. `from` is client or server; `code` is null or 1005 for a frame
// without one. What nobody knows is null.
export function makeCloseFrame(from, code, reason) {
  const hasCode = code !== null && code !== 1005;
  const payload = hasCode ? code.toString(16).padStart(4, '0') + encodeHex(reason) : '';
  const isMasked = from === 'client';
  const length = hasCode ? 2 + sizeOf(reason) : 0;
  return {
    isTold: false,
    from,
    message: null,
    fragment: null,
    fin: true,
    rsv: 0,
    opcode: 8,
    masked: isMasked,
    short_length: length,
    extended_length: '',
    length,
    masking_key: isMasked ? null : '',
    wire_payload: isMasked ? null : payload,
    payload,
    is_text: false,
    inflated: null,
    inflated_length: 0,
    close: { code: hasCode ? code : null, reason },
  };
}
