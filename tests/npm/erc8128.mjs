// An independent implementation of ERC-8128 as a peer: one JSON command a line in, one JSON answer a line out.
import { createInterface } from "node:readline";
import { signRequest, verifyRequest } from "@slicekit/erc8128";
import { recoverMessageAddress } from "viem";
import { privateKeyToAccount } from "viem/accounts";

async function sign({ key, chainId, method, url, headers, body, created, expires, nonce, components }) {
  const account = privateKeyToAccount(key);
  const signer = {
    chainId,
    address: account.address,
    signMessage: (message) => account.signMessage({ message: { raw: message } }),
  };
  const request = new Request(url, { method, headers, body: body ?? undefined });
  const signed = await signRequest(request, signer, { created, expires, nonce, components });
  return Object.fromEntries(signed.headers);
}

async function verify({ method, url, headers, body, now }) {
  const request = new Request(url, { method, headers, body: body ?? undefined });
  const used = new Set();
  const result = await verifyRequest({
    request,
    verifyMessage: async ({ address, message, signature }) =>
      (await recoverMessageAddress({ message, signature })).toLowerCase() === address.toLowerCase(),
    nonceStore: { consume: async (key) => !used.has(key) && !!used.add(key) },
    policy: { now: () => now },
  });
  return { ok: result.ok, address: result.address ?? null, reason: result.reason ?? null };
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const answer = await (command.op === "sign" ? sign(command) : verify(command));
  process.stdout.write(JSON.stringify(answer) + "\n");
}
