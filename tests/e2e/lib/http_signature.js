/*
 * Verify request signatures with npm's http-signature, which nobody of this project wrote.
 *
 * In: a JSON object a line on stdin: method, target, headers, required, pem.  Out: {"ok": true} or {"error": "…"}, a line each.
 * Freshness is the harness's: the clock skew is opened wide, because some requests are signed for a time of their own.
 */
'use strict';

const readline = require('readline');
const signature = require(process.argv[2]);

function verify(asked) {
  const request = { method: asked.method, url: asked.target, headers: asked.headers, httpVersion: '1.1' };
  const parsed = signature.parseRequest(request, { clockSkew: 1e12, headers: asked.required });
  return signature.verifySignature(parsed, asked.pem) ? { ok: true } : { error: 'the signature does not verify' };
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  let told;
  try {
    told = verify(JSON.parse(line));
  } catch (error) {
    told = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(JSON.stringify(told) + '\n');
});
