// An NBD client that only makes load: random, aligned requests of one size at a fixed depth. The same
// one for every server, so that what differs between them is theirs. (NBD protocol document,
// doc/proto.md: fixed newstyle handshake, simple replies.)

import { connect } from 'node:net';
import { Samples } from './samples.mjs';

const command = { read: 0, write: 1, disconnect: 2, flush: 3 };
const fuaFlag = 1;
const headBytes = 28;
const replyBytes = 16;

export async function openNbd({ path, name = '' }) {
  const socket = connect({ path });
  const input = { bytes: Buffer.alloc(0), wanted: 0, resolve: null };
  let receive = (chunk) => {
    input.bytes = Buffer.concat([input.bytes, chunk]);
    if (input.resolve !== null && input.bytes.length >= input.wanted) {
      const { resolve } = input;
      input.resolve = null;
      resolve();
    }
  };
  let fail = () => {};
  socket.on('data', (chunk) => receive(chunk));
  socket.on('close', () => fail(new Error(`${path} closed the connection`)));
  await new Promise((resolve, reject) => {
    fail = reject;
    socket.once('connect', resolve).once('error', reject);
  });
  const take = async (count) => {
    input.wanted = count;
    if (input.bytes.length < count) {
      await new Promise((resolve, reject) => {
        input.resolve = resolve;
        fail = reject;
      });
    }
    const taken = input.bytes.subarray(0, count);
    input.bytes = input.bytes.subarray(count);
    return taken;
  };
  await take(18);
  const flags = Buffer.from([0, 0, 0, 3]); // fixed newstyle, no zeroes
  const option = Buffer.alloc(16 + 4 + name.length + 2);
  option.write('IHAVEOPT', 0, 'latin1');
  option.writeUInt32BE(7, 8); // GO
  option.writeUInt32BE(option.length - 16, 12);
  option.writeUInt32BE(name.length, 16);
  option.write(name, 20, 'latin1');
  socket.write(Buffer.concat([flags, option]));
  let sizeBytes = 0;
  for (;;) {
    const head = await take(20);
    const type = head.readUInt32BE(12);
    const data = Buffer.from(await take(head.readUInt32BE(16)));
    if (type === 1) break; // acknowledged
    if (type >= 2 ** 31) throw new Error(`${path} refuses the export: ${data.toString('latin1')}`);
    if (type === 3 && data.readUInt16BE(0) === 0) sizeBytes = Number(data.readBigUInt64BE(2));
  }

  /** Runs until the time is up, or over the whole device once where `ms` is null. */
  function run({ write, fua = false, blockBytes, depth, ms, warmUpMs = 0 }) {
    return new Promise((resolve, reject) => {
      fail = reject;
      const samples = new Samples();
      const blocks = Math.floor(sizeBytes / blockBytes);
      const data = Buffer.alloc(blockBytes, 0xa5);
      const askedAt = new Float64Array(depth);
      const whole = headBytes + (write ? blockBytes : 0);
      const began = performance.now() + warmUpMs;
      const until = ms === null ? Infinity : began + ms;
      let issued = 0;
      let running = 0;
      let seed = 0x2545f491;
      /** To be asked once more, after the chunk that has come in is understood: in one write. */
      const free = Array.from({ length: depth }, (_, slot) => slot);
      const ask = (now) => {
        if (now >= until || (ms === null && issued >= blocks)) free.length = 0;
        const count = ms === null ? Math.min(free.length, blocks - issued) : free.length;
        if (count === 0) {
          if (running === 0) {
            fail = () => {};
            resolve(samples.figures(performance.now() - began));
          }
          return;
        }
        const bytes = Buffer.allocUnsafeSlow(count * whole);
        for (let index = 0; index < count; index += 1) {
          const slot = free[index];
          seed ^= seed << 13;
          seed ^= seed >>> 17;
          seed ^= seed << 5;
          const block = ms === null ? issued : (seed >>> 0) % blocks;
          const at = index * whole;
          bytes.writeUInt32BE(0x25609513, at);
          bytes.writeUInt16BE(fua ? fuaFlag : 0, at + 4);
          bytes.writeUInt16BE(write ? command.write : command.read, at + 6);
          bytes.writeUInt32BE(0, at + 8);
          bytes.writeUInt32BE(slot, at + 12);
          bytes.writeBigUInt64BE(BigInt(block) * BigInt(blockBytes), at + 16);
          bytes.writeUInt32BE(blockBytes, at + 24);
          if (write) data.copy(bytes, at + headBytes);
          askedAt[slot] = now;
          issued += 1;
        }
        running += count;
        free.length = 0;
        socket.write(bytes);
      };
      const head = Buffer.alloc(replyBytes);
      let headFilled = 0;
      let dataLeft = 0;
      let slot = 0;
      const answered = (now) => {
        running -= 1;
        free.push(slot);
        if (askedAt[slot] >= began) samples.add(now - askedAt[slot]);
      };
      receive = (chunk) => {
        const now = performance.now();
        let at = 0;
        while (at < chunk.length) {
          if (dataLeft > 0) {
            const step = Math.min(dataLeft, chunk.length - at);
            dataLeft -= step;
            at += step;
            if (dataLeft === 0) answered(now);
            continue;
          }
          const step = Math.min(replyBytes - headFilled, chunk.length - at);
          chunk.copy(head, headFilled, at, at + step);
          headFilled += step;
          at += step;
          if (headFilled < replyBytes) break;
          headFilled = 0;
          if (head.readUInt32BE(0) !== 0x67446698 || head.readUInt32BE(4) !== 0) {
            return reject(new Error(`${path} answered error ${head.readUInt32BE(4)}`));
          }
          slot = head.readUInt32BE(12);
          if (write) answered(now);
          else dataLeft = blockBytes;
        }
        if (free.length > 0) ask(now);
      };
      ask(performance.now());
    });
  }

  return {
    sizeBytes,
    run,
    close() {
      fail = () => {};
      socket.destroy();
    },
  };
}
