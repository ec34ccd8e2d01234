// Three store processes on loopback addresses, with certificates of one authority.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { start, waitFor } from './processes.mjs';

const port = 7470;

export async function startCluster({ dist, folder, network, execArgv = [] }) {
  const pki = await import(pathToFileURL(path.join(dist, 'platform/pki.js')).href);
  const authority = await pki.createAuthority('bench');
  const names = ['host-1', 'host-2', 'host-3'];
  const members = names.map((host, index) => ({
    host,
    address: `${network}.${index + 1}:${port}`,
  }));
  const hosts = [];
  for (const name of names) {
    const { key, request } = await pki.createHostRequest(name);
    const credentials = {
      ca: authority.certificate,
      certificate: await pki.signHost(authority, request, name),
      key,
    };
    const own = path.join(folder, name);
    await mkdir(own, { recursive: true, mode: 0o700 });
    const log = path.join(folder, `${name}.log`);
    const script = path.join(import.meta.dirname, 'host.mjs');
    const child = start(process.execPath, [script, dist], { log, ipc: true, execArgv });
    const ask = asker(child);
    await ask('begin', { name, folder: own, members, credentials });
    hosts.push({ name, child, ask });
  }
  for (const { child, ask } of hosts) {
    await waitFor('the hosts see each other', async () => (await ask('reachable')) === 3, child);
  }
  return hosts;
}

function asker(child) {
  const waiting = new Map();
  let last = 0;
  child.on('message', ({ id, answer, error }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(answer);
    else reject(new Error(error));
  });
  child.once('exit', () => {
    // After this turn the reason is known.
    setImmediate(() => {
      for (const { reject } of waiting.values()) reject(new Error(child.failure));
    });
  });
  return (command, options) =>
    new Promise((resolve, reject) => {
      last += 1;
      waiting.set(last, { resolve, reject });
      child.send({ id: last, command, options });
    });
}
