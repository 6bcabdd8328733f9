// Compiles many variants of src/LeaseAgreement.sol in one process: reads a JSON list of [name, source] from standard input, and
// writes one JSON object a line: {name, bytecode, runtimeBytes, runtimeCodeHash} or {name, error}.

"use strict";

const { compileAgreement } = require("./compile.js");

const variants = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
for (const [name, source] of variants) {
  process.stdout.write(`${JSON.stringify({ name, ...compileAgreement(source) })}\n`);
}
