// Three etcd members on loopback, with their usual durability (fsync before the answer), and a client
// that costs next to nothing: HTTP/2 frames written and read by hand, on one connection to the leader,
// which serves puts fastest. What is measured is etcd, not a client library.

import { mkdir } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { start, waitFor } from './processes.mjs';
import { Samples } from './samples.mjs';

const names = ['e1', 'e2', 'e3'];
const frameType = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, window: 8 };
const endStream = 1;
const endHeaders = 4;
const ack = 1;

export async function startEtcd({ folder, network }) {
  const peerOf = (index) => `http://${network}.${index + 1}:2380`;
  const clientOf = (index) => `http://${network}.${index + 1}:2379`;
  const members = [];
  for (const [index, name] of names.entries()) {
    const data = path.join(folder, name);
    await mkdir(data, { recursive: true, mode: 0o700 });
    const args = [
      ['--name', name],
      ['--data-dir', data],
      ['--listen-peer-urls', peerOf(index)],
      ['--initial-advertise-peer-urls', peerOf(index)],
      ['--listen-client-urls', clientOf(index)],
      ['--advertise-client-urls', clientOf(index)],
      ['--initial-cluster', names.map((one, at) => `${one}=${peerOf(at)}`).join(',')],
      ['--initial-cluster-state', 'new'],
      ['--logger', 'zap'],
      ['--log-level', 'warn'],
    ];
    members.push(start('etcd', args.flat(), { log: path.join(folder, `${name}.log`) }));
  }
  let leader = -1;
  await waitFor(
    'etcd has a leader',
    async () => {
      for (const index of members.keys()) {
        const status = await statusOf(clientOf(index));
        if (
          status?.leader !== undefined &&
          status.leader !== '0' &&
          status.leader === status.header.member_id
        ) {
          leader = index;
        }
      }
      return leader >= 0;
    },
    members[0],
  );
  const client = await openClient(`${network}.${leader + 1}`, 2379);
  return { members, client };
}

async function statusOf(url) {
  try {
    const answer = await fetch(`${url}/v3/maintenance/status`, { method: 'POST', body: '{}' });
    return await answer.json();
  } catch {
    return null;
  }
}

/** So many operations under way, for so long. */
export async function load({ client, inFlight, ms, request }) {
  const samples = new Samples();
  const began = performance.now();
  const until = began + ms;
  await new Promise((resolve, reject) => {
    let running = inFlight;
    const next = (worker, turn) => {
      const asked = performance.now();
      if (asked >= until) {
        running -= 1;
        if (running === 0) resolve();
        return;
      }
      const { path: method, message } = request(worker + turn * inFlight);
      client.call(method, message, (error) => {
        if (error !== null) return reject(new Error(error.message));
        samples.add(performance.now() - asked);
        next(worker, turn + 1);
      });
    };
    for (let worker = 0; worker < inFlight; worker += 1) next(worker, 0);
  });
  return samples.figures(performance.now() - began);
}

export const put = (key, value) => ({
  path: '/etcdserverpb.KV/Put',
  message: Buffer.concat([field(1, Buffer.from(key)), field(2, Buffer.from(value))]),
});

/** As this member has it, without asking the others: the quick way, as ours. */
export const range = (from, to) => ({
  path: '/etcdserverpb.KV/Range',
  message: Buffer.concat([
    field(1, Buffer.from(from)),
    field(2, Buffer.from(to)),
    Buffer.from([0x38, 1]),
  ]),
});

function field(number, bytes) {
  const length = [];
  let rest = bytes.length;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length, rest]), bytes]);
}

function frame(type, flags, stream, payload) {
  const bytes = Buffer.allocUnsafe(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  payload.copy(bytes, 9);
  return bytes;
}

/** A header block in literals only, so that the encoder's table stays empty. */
function headerBlock(method, authority) {
  const text = (value) => Buffer.from([value.length, ...Buffer.from(value)]);
  return Buffer.concat([
    Buffer.from([0x83, 0x86, 0x04]), // POST, http, path:
    text(method),
    Buffer.from([0x01]),
    text(authority),
    Buffer.from([0x0f, 0x10]), // content-type:
    text('application/grpc'),
    Buffer.from([0x00]),
    text('te'),
    text('trailers'),
  ]);
}

async function openClient(host, port) {
  const socket = connect({ host, port, noDelay: true });
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  const blocks = new Map();
  const calls = new Map();
  /** What the server allows us to send on the connection. */
  let window = 65_535;
  const waiting = [];
  let stream = 1;
  let out = [];
  let failure = null;
  const flush = () => {
    const all = out;
    out = [];
    socket.write(Buffer.concat(all));
  };
  const send = (bytes) => {
    if (out.length === 0) queueMicrotask(flush);
    out.push(bytes);
  };
  const fail = (error) => {
    failure ??= error;
    for (const { done } of calls.values()) done(failure);
    calls.clear();
  };

  function transmit(method, body, done) {
    window -= body.length;
    let block = blocks.get(method);
    if (block === undefined) {
      block = headerBlock(method, `${host}:${port}`);
      blocks.set(method, block);
    }
    calls.set(stream, { done, bytes: 0 });
    send(frame(frameType.headers, endHeaders, stream, block));
    send(frame(frameType.data, endStream, stream, body));
    stream += 2;
  }

  function received(type, flags, id, payload) {
    const call = calls.get(id);
    if (type === frameType.data) {
      if (call !== undefined) call.bytes += payload.length;
      const grown = Buffer.alloc(4);
      grown.writeUInt32BE(Math.max(1, payload.length));
      if (payload.length > 1000) send(frame(frameType.window, 0, 0, grown));
    }
    const ended =
      type === frameType.reset || ((flags & endStream) !== 0 && type <= frameType.headers);
    if (ended && call !== undefined) {
      calls.delete(id);
      // An answer has a message; a refusal has only trailers.
      call.done(call.bytes >= 5 ? null : new Error('etcd refused a request'));
    }
    if (type === frameType.settings && (flags & ack) === 0) {
      send(frame(frameType.settings, ack, 0, Buffer.alloc(0)));
    }
    if (type === frameType.ping && (flags & ack) === 0)
      send(frame(frameType.ping, ack, 0, payload));
    if (type === frameType.goAway) fail(new Error('etcd said good-bye'));
    if (type === frameType.window && id === 0) {
      window += payload.readUInt32BE(0);
      while (waiting.length > 0 && window >= waiting[0].body.length) {
        const { method, body, done } = waiting.shift();
        transmit(method, body, done);
      }
    }
  }

  let rest = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (bytes.length - at >= 9) {
      const length = bytes.readUIntBE(at, 3);
      if (bytes.length - at < 9 + length) break;
      const payload = bytes.subarray(at + 9, at + 9 + length);
      received(bytes[at + 3], bytes[at + 4], bytes.readUInt32BE(at + 5) & 0x7fffffff, payload);
      at += 9 + length;
    }
    rest = bytes.subarray(at);
  });
  socket.on('error', fail);
  socket.on('close', () => fail(new Error('etcd closed the connection')));
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  // Initial window of a stream, and of the connection: as large as may be.
  send(frame(frameType.settings, 0, 0, Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff])));
  send(frame(frameType.window, 0, 0, Buffer.from([0x7f, 0xff, 0, 0])));
  return {
    call(method, message, done) {
      if (failure !== null) return done(failure);
      const body = Buffer.allocUnsafe(5 + message.length);
      body[0] = 0;
      body.writeUInt32BE(message.length, 1);
      message.copy(body, 5);
      if (window >= body.length && waiting.length === 0) transmit(method, body, done);
      else waiting.push({ method, body, done });
    },
    close: () => socket.destroy(),
  };
}
