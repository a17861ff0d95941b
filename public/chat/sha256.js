// SHA-256 (FIPS 180-4), of short texts. Browsers have it themselves, but hide it from pages on plain http.

const encoder = new TextEncoder();
const PRIMES = firstPrimes(64);
const ROUNDS = PRIMES.map((prime) => fraction(Math.cbrt(prime)));
const INITIAL = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));

// Returns the hash of a text in UTF-8, in hexadecimal.
export function sha256(text) {
  const words = pad(encoder.encode(text));
  let state = INITIAL;
  for (let i = 0; i < words.length; i += 16) state = addBlock(state, words.subarray(i, i + 16));
  return state.map((word) => word.toString(16).padStart(8, '0')).join('');
}

function firstPrimes(count) {
  const primes = [];
  for (let n = 2; primes.length < count; n += 1) if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  return primes;
}

// Returns the first 32 bits behind the point.
function fraction(number) {
  return Math.floor((number % 1) * 2 ** 32);
}

// Returns the 32-bit words of the message: behind its bytes a 1, zeros up to a whole block, and its length in bits.
function pad(bytes) {
  const padded = new DataView(new ArrayBuffer(64 * Math.ceil((bytes.length + 9) / 64)));
  bytes.forEach((byte, i) => padded.setUint8(i, byte));
  padded.setUint8(bytes.length, 0x80);
  padded.setUint32(padded.byteLength - 4, 8 * bytes.length);
  return Uint32Array.from({ length: padded.byteLength / 4 }, (_, i) => padded.getUint32(4 * i));
}

function addBlock(state, block) {
  const words = extend(block);
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i += 1) {
    const bigSigma1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const choice = (e & f) ^ (~e & g);
    const one = (h + bigSigma1 + choice + ROUNDS[i] + words[i]) >>> 0;
    const bigSigma0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const two = (bigSigma0 + majority) >>> 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) >>> 0, c, b, a, (one + two) >>> 0];
  }
  return [a, b, c, d, e, f, g, h].map((word, i) => (word + state[i]) >>> 0);
}

function extend(block) {
  const words = new Uint32Array(64);
  words.set(block);
  for (let i = 16; i < 64; i += 1) {
    const [early, late] = [words[i - 15], words[i - 2]];
    const sigma0 = rotate(early, 7) ^ rotate(early, 18) ^ (early >>> 3);
    const sigma1 = rotate(late, 17) ^ rotate(late, 19) ^ (late >>> 10);
    words[i] = words[i - 16] + sigma0 + words[i - 7] + sigma1;
  }
  return words;
}

function rotate(word, bits) {
  return (word >>> bits) | (word << (32 - bits));
}
