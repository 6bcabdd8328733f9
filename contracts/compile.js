// Compiles the contracts with the pinned WASM solc and writes what the rest of the project reads.
//
//   node compile.js           write the artifacts
//   node compile.js --check   write nothing; exit 1 and name each file that a fresh compile would change
//   node compile.js --standard-json   print the compiler's input, complete with the libraries, for other tools
//
// The same sources give the same bytes on every machine: compiler, settings and libraries are pinned, and no metadata hash
// is appended, so that a comment changes no code.

"use strict";

const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");
const { keccak256 } = require("js-sha3");

const HERE = __dirname;
const PROTOCOL = path.join(HERE, "../daemon/pandacea_sdk/protocol/abi");
const TEST = path.join(HERE, "test/artifacts");
const SETTINGS = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 1_000_000 },
  viaIR: true,
  metadata: { bytecodeHash: "none", appendCBOR: false },
};

function sourcesBelow(folder) {
  return fs
    .readdirSync(path.join(HERE, folder), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const name = `${folder}/${entry.name}`;
      if (entry.isDirectory()) return sourcesBelow(name);
      return entry.name.endsWith(".sol") ? [name] : [];
    });
}

function read(name) {
  const file = name.startsWith("@") ? path.join(HERE, "node_modules", name) : path.join(HERE, name);
  return fs.readFileSync(file, "utf8");
}

// Every source by name, with the libraries they import, so that the input is complete by itself.
function standardJson() {
  const sources = {};
  const open = [...sourcesBelow("src"), ...sourcesBelow("test/solidity")];
  while (open.length > 0) {
    const name = open.pop();
    if (sources[name]) continue;
    const content = read(name);
    sources[name] = { content };
    for (const [, imported] of content.matchAll(/^import [^;]*?"([^"]+)";/gm)) {
      open.push(imported.startsWith(".") ? path.posix.join(path.posix.dirname(name), imported) : imported);
    }
  }
  const sorted = Object.fromEntries(Object.entries(sources).sort(([a], [b]) => (a < b ? -1 : 1)));
  const outputSelection = { "*": { "*": ["abi", "evm.bytecode", "evm.deployedBytecode", "evm.methodIdentifiers", "storageLayout", "devdoc", "userdoc"], "": ["ast"] } };
  return { language: "Solidity", sources: sorted, settings: { ...SETTINGS, outputSelection } };
}

function compile(input) {
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const problems = (output.errors ?? []).filter((problem) => !problem.sourceLocation?.file.startsWith("@") || problem.severity !== "warning");
  for (const problem of problems) console.error(problem.formattedMessage);
  if (problems.length > 0) process.exit(1); // a warning in our own sources is an error
  return output;
}

// What each custom error means, by signature, for the sentence a caller is shown.
function notices(errors) {
  return Object.fromEntries(Object.entries(errors).map(([signature, [{ notice }]]) => [signature, notice]));
}

// Where state lives: [label, slot, offset in bytes, bytes], for the contract and for the struct it keeps.
function storage({ storage: variables, types }) {
  const rows = (members) => members.map(({ label, slot, offset, type }) => [label, Number(slot), offset, Number(types[type].numberOfBytes)]);
  const structs = Object.values(types ?? {}).filter((type) => type.members);
  return { contract: rows(variables), ...Object.fromEntries(structs.map((type) => [type.label, rows(type.members)])) };
}

// sha-256 of our own sources, so that a stale artifact is seen where there is no Node to compile with.
function digests(sources, folder) {
  const ours = Object.entries(sources).filter(([name]) => name.startsWith(folder));
  return Object.fromEntries(ours.map(([name, { content }]) => [name, createHash("sha256").update(content).digest("hex")]));
}

function artifact(name, contract, { code, sources }) {
  const runtime = contract.evm.deployedBytecode;
  if (Object.keys(runtime.immutableReferences).length > 0) throw new Error(`${name} has immutables: its code hash is no constant`);
  const described = { contractName: name, compiler: solc.version(), settings: SETTINGS, sources, abi: contract.abi };
  if (!code) return described;
  return {
    ...described,
    errorNotices: notices(contract.userdoc.errors ?? {}),
    storage: storage(contract.storageLayout),
    bytecode: `0x${contract.evm.bytecode.object}`,
    runtimeBytes: runtime.object.length / 2,
    runtimeCodeHash: `0x${keccak256(Buffer.from(runtime.object, "hex"))}`,
  };
}

function artifacts(output, input) {
  const below = (folder) => digests(input.sources, folder);
  const files = new Map();
  const put = (folder, name, contract, options) =>
    files.set(path.join(folder, `${name}.json`), `${JSON.stringify(artifact(name, contract, options), null, 2)}\n`);
  put(PROTOCOL, "LeaseAgreement", output.contracts["src/LeaseAgreement.sol"].LeaseAgreement, { code: true, sources: below("src/") });
  put(PROTOCOL, "LeaseAgreementV0", output.contracts["test/solidity/LeaseAgreementV0.sol"].LeaseAgreementV0, { code: false, sources: below("test/solidity/LeaseAgreementV0.sol") });
  for (const [source, contracts] of Object.entries(output.contracts)) {
    if (!source.startsWith("test/solidity/")) continue;
    for (const [name, contract] of Object.entries(contracts)) put(TEST, name, contract, { code: true, sources: below(source) });
  }
  return files;
}

// The contract with another source than the one that is here, for mutants; null where it does not compile without a warning.
function compileAgreement(source) {
  const input = standardJson();
  const main = "src/LeaseAgreement.sol";
  input.sources = Object.fromEntries(Object.entries(input.sources).filter(([name]) => !name.startsWith("test/")));
  input.sources[main] = { content: source };
  input.settings.outputSelection = { [main]: { LeaseAgreement: ["evm.bytecode", "evm.deployedBytecode"] } };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const problem = (output.errors ?? []).find((one) => !one.sourceLocation?.file.startsWith("@") || one.severity !== "warning");
  if (problem) return { error: problem.message };
  const { evm } = output.contracts[main].LeaseAgreement;
  const runtime = Buffer.from(evm.deployedBytecode.object, "hex");
  return { bytecode: `0x${evm.bytecode.object}`, runtimeBytes: runtime.length, runtimeCodeHash: `0x${keccak256(runtime)}` };
}

function main() {
  const input = standardJson();
  const flag = process.argv[2];
  if (flag === "--standard-json") {
    process.stdout.write(`${JSON.stringify(input, null, 2)}\n`);
    return;
  }
  if (flag !== undefined && flag !== "--check") {
    console.error(`unknown argument ${flag}: use none, --check or --standard-json`);
    process.exit(2);
  }
  const stale = [];
  for (const [file, text] of artifacts(compile(input), input)) {
    if (fs.existsSync(file) && fs.readFileSync(file, "utf8") === text) continue;
    stale.push(path.relative(path.join(HERE, ".."), file));
    if (flag !== "--check") {
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, text);
    }
  }
  if (flag === "--check" && stale.length > 0) {
    console.error(`differs from a fresh compile: ${stale.join(", ")}; run \`make contracts\` and commit the result`);
    process.exit(1);
  }
  console.log(stale.length > 0 ? `written: ${stale.join(", ")}` : "up to date");
}

if (require.main === module) main();
module.exports = { compileAgreement };
