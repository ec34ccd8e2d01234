// Packs files into the archive that the Linux kernel unpacks as its first root file system.
//
// The format is cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst in the
// kernel's source): per entry a header of 13 hexadecimal fields, the name and the data, both padded
// to 4 bytes. Forty lines here save a Debian package, and the archive comes out the same for the
// same input: no time stamps, no inode numbers of the machine, everything owned by root.
//
// Usage: node guest/cpio.mjs OUTPUT ENTRY...   ENTRY = "DIRECTORY/" or "NAME=FILE"

import { readFileSync, writeFileSync } from 'node:fs';

const DIRECTORY = 0o040755;
const PROGRAM = 0o100755;

let inode = 0;

/** @param {string} name @param {number} mode @param {Buffer} data */
function entry(name, mode, data) {
  inode += 1;
  const nameBytes = Buffer.from(`${name}\0`);
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, nameBytes.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([padded(Buffer.concat([Buffer.from(header), nameBytes])), padded(data)]);
}

/** @param {Buffer} bytes */
function padded(bytes) {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}

const [output, ...entries] = process.argv.slice(2);
if (output === undefined || entries.length === 0) {
  console.error('usage: node guest/cpio.mjs OUTPUT ENTRY...   ENTRY = "DIRECTORY/" or "NAME=FILE"');
  process.exit(2);
}

const parts = entries.map((text) => {
  if (text.endsWith('/')) return entry(text.slice(0, -1), DIRECTORY, Buffer.alloc(0));
  const split = text.indexOf('=');
  return entry(text.slice(0, split), PROGRAM, readFileSync(text.slice(split + 1)));
});
parts.push(entry('TRAILER!!!', 0, Buffer.alloc(0)));
writeFileSync(output, Buffer.concat(parts));
