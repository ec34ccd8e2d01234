import { spawn } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createStreams } from '../../src/platform/streams.ts';
import type { Stream } from '../../src/ports/streams.ts';
import { cleanUp, temporaryFolder, until } from './fixture.ts';

async function serve(path: string) {
  const accepted: Stream[] = [];
  const seen: string[] = [];
  const listener = await createStreams().listen(path, (stream) => {
    accepted.push(stream);
    stream.handle({
      data: (bytes) => void seen.push(`data ${Buffer.from(bytes).toString()}`),
      drained: () => void seen.push('drained'),
      closed: () => void seen.push('closed'),
    });
  });
  cleanUp(() => listener.close());
  return { listener, accepted, seen };
}

function dial(path: string): Socket {
  const socket = createConnection(path);
  socket.on('error', () => {});
  cleanUp(() => socket.destroy());
  return socket;
}

describe('a local stream', () => {
  it('carries bytes both ways and ends', async () => {
    const path = join(await temporaryFolder(), 'socket');
    const { accepted, seen } = await serve(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const client = dial(path);
    let got = '';
    client.on('data', (bytes) => {
      got += bytes;
    });
    client.write('question');
    await until(() => seen.includes('data question'));
    const [stream] = accepted as [Stream];
    expect(stream.write([Buffer.from('an'), new Uint8Array(0), Buffer.from('swer')])).toBe(true);
    stream.write([Buffer.from('!')]);
    stream.end();
    await until(() => seen.includes('closed'));
    expect(got).toBe('answer!');
    expect(stream.write([Buffer.from('late')])).toBe(true); // lost, without an error
  });

  it('says when the reader is slow, and when it has caught up', async () => {
    const path = join(await temporaryFolder(), 'socket');
    const { accepted, seen } = await serve(path);
    const client = dial(path);
    client.pause();
    await until(() => accepted.length === 1);
    const [stream] = accepted as [Stream];
    const block = Buffer.alloc(1024 * 1024);
    let blocks = 1;
    while (stream.write([block])) blocks += 1;
    let got = 0;
    client.on('data', (bytes) => {
      got += bytes.length;
    });
    client.resume();
    await until(() => seen.includes('drained'));
    await until(() => got === blocks * block.length);
    stream.destroy();
    await until(() => seen.includes('closed'));
  });

  it('lives on when its listener closes, and the socket file goes', async () => {
    const path = join(await temporaryFolder(), 'socket');
    const { listener, accepted, seen } = await serve(path);
    const client = dial(path);
    await until(() => accepted.length === 1);
    await listener.close();
    expect(existsSync(path)).toBe(false);
    client.write('still here');
    await until(() => seen.includes('data still here'));
    accepted[0]?.destroy();
  });
});

describe('a socket path', () => {
  it('of a killed process is taken over; one that answers, or a file, is not', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'socket');
    const script = `require('node:net').createServer().listen(process.argv[1], () => console.log('up'))`;
    const other = spawn(process.execPath, ['-e', script, path]);
    cleanUp(() => other.kill('SIGKILL'));
    await new Promise((resolve) => other.stdout.once('data', resolve));
    await expect(serve(path)).rejects.toMatchObject({ code: 'conflict' });
    const ended = new Promise((resolve) => other.once('exit', resolve));
    other.kill('SIGKILL');
    await ended;
    expect(existsSync(path)).toBe(true);
    const { accepted } = await serve(path);
    dial(path);
    await until(() => accepted.length === 1);

    writeFileSync(join(folder, 'file'), 'precious');
    await expect(serve(join(folder, 'file'))).rejects.toMatchObject({ code: 'conflict' });
    expect(existsSync(join(folder, 'file'))).toBe(true);
  });

  it('has at most 107 bytes, and a folder', async () => {
    const folder = await temporaryFolder();
    const longest = join(folder, 'x'.repeat(107 - folder.length - 1));
    await serve(longest);
    await expect(serve(`${longest}x`)).rejects.toMatchObject({
      code: 'bad-request',
      message: expect.stringMatching(/107 bytes/),
    });
    await expect(serve(join(folder, 'no', 'socket'))).rejects.toMatchObject({ code: 'disk-error' });
  });
});
