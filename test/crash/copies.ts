// The copies of a disk as they lie in the files of their hosts, while nothing is written: those that
// count must hold the same bytes. And no file may be there that no record names.

import { createHash } from 'node:crypto';
import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { ObjectReply } from '../../src/api/storage-schemas.ts';

const stripeBytes = 1024 * 1024;

/** By component, the file of its data. Where in the host's folder it lies is the store's business. */
function dataFiles(folder: string, host: string): Map<string, string> {
  const home = join(folder, host);
  const names = readdirSync(home, { recursive: true, encoding: 'utf8' });
  return new Map(
    names
      .filter((name) => name.endsWith('.data'))
      .map((name) => [name.slice(name.lastIndexOf('/') + 1, -'.data'.length), join(home, name)]),
  );
}

/** Files of components that none of these objects, which are all of the cluster, names. */
export function unnamedFiles(
  folder: string,
  hosts: readonly string[],
  objects: readonly ObjectReply[],
): string[] {
  const named = new Set(objects.flatMap((one) => one.components.map((part) => part.component)));
  return hosts.flatMap((host) =>
    [...dataFiles(folder, host).keys()]
      .filter((component) => !named.has(component))
      .map((component) => `${component} on ${host}`),
  );
}

/** What is wrong with the copies of this disk; null: nothing. It must be in sync. */
export function difference(folder: string, object: ObjectReply): string | null {
  const digests = new Map<number, { component: string; digest: string }>();
  for (const { component, host, stripe } of object.components) {
    const file = dataFiles(folder, host).get(component);
    if (file === undefined) return `${component} counts, and ${host} has no file of it`;
    const digest = digestOf(file, bytesOf(object, stripe));
    const other = digests.get(stripe);
    if (other !== undefined && other.digest !== digest) {
      return `stripe ${stripe} differs between ${component} on ${host} and ${other.component}`;
    }
    digests.set(stripe, { component, digest });
  }
  return null;
}

/** Of the disk, what lies in this stripe; a disk of whole chunks of `stripeBytes` each. */
function bytesOf({ sizeBytes, policy }: ObjectReply, stripe: number): number {
  const chunks = sizeBytes / stripeBytes;
  const { stripes } = policy;
  return stripeBytes * (Math.floor(chunks / stripes) + (stripe < chunks % stripes ? 1 : 0));
}

function digestOf(file: string, bytes: number): string {
  const hash = createHash('sha1');
  const chunk = Buffer.alloc(stripeBytes);
  const descriptor = openSync(file, 'r');
  try {
    for (let at = 0; at < bytes; at += chunk.length) {
      const length = readSync(descriptor, chunk, 0, chunk.length, at);
      if (length !== chunk.length) throw new Error(`${file} is too short`);
      hash.update(chunk);
    }
  } finally {
    closeSync(descriptor);
  }
  return hash.digest('hex');
}
