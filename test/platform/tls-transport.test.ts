import { createServer } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { limits } from '../../src/model/limits.ts';
import { FrameReader } from '../../src/platform/frame-stream.ts';
import { createAuthority, createJoinToken, readJoinToken } from '../../src/platform/pki.ts';
import {
  authority,
  credentialsOf,
  lengthPrefixed,
  rawClient,
  startHost,
  type TestHost,
  until,
} from './fixture.ts';

const hello = lengthPrefixed('holdfast transport 2');
const text = (content: string) => [Buffer.from(content)];
const textsOf = (host: TestHost) => host.frames.map(({ bytes }) => Buffer.from(bytes).toString());

async function pair(): Promise<[TestHost, TestHost]> {
  const a = await startHost('host-a');
  const b = await startHost('host-b');
  a.transport.setPeers(new Map([[b.name, b.address]]));
  b.transport.setPeers(new Map([[a.name, a.address]]));
  await until(() => a.events.length === 1 && b.events.length === 1);
  return [a, b];
}

describe('a session between two hosts', () => {
  it('is one session that both see, and carries frames both ways in order', async () => {
    const [a, b] = await pair();
    for (let index = 0; index < 500; index += 1) {
      expect(a.transport.send(b.name, text(`a${index}`))).toBe(true);
      expect(
        b.transport.send(a.name, [Buffer.from('b'), Buffer.alloc(0), ...text(`${index}`)]),
      ).toBe(true);
    }
    await until(() => a.frames.length === 500 && b.frames.length === 500);
    expect(textsOf(b)).toEqual(Array.from({ length: 500 }, (_, index) => `a${index}`));
    expect(textsOf(a)).toEqual(Array.from({ length: 500 }, (_, index) => `b${index}`));
    expect(a.frames.every(({ from }) => from === 'host-b')).toBe(true);
    expect([a.events, b.events]).toEqual([['up host-b'], ['up host-a']]);
  });

  it('carries the largest frame, and ends at a larger one', async () => {
    const [a, b] = await pair();
    const large = Buffer.alloc(limits.maxFrameBytes, 'holdfast');
    a.transport.send(b.name, [large.subarray(0, 1000), large.subarray(1000)]);
    a.transport.send(b.name, text('small'));
    await until(() => b.frames.length === 2);
    expect(large.equals(b.frames[0]?.bytes as Uint8Array)).toBe(true);
    // No Buffers: their `slice` shares what it should copy.
    expect(b.frames.every(({ bytes }) => bytes.constructor === Uint8Array)).toBe(true);
    a.transport.send(b.name, [large, Buffer.alloc(1)]);
    a.transport.send(b.name, text('after'));
    await until(() => b.events.includes('down host-a silent'));
    expect(b.frames).toHaveLength(2);
  });

  it('does not exist with hosts that are not there', async () => {
    const a = await startHost('host-a');
    expect(a.transport.send(hostId('host-b'), text('lost'))).toBe(false);
    expect(a.transport.send(a.name, text('lost'))).toBe(false);
  });

  it('comes back when the other host was killed and is back', async () => {
    const [a, b] = await pair();
    await b.stop();
    await until(() => a.events.includes('down host-b closed'));
    expect(a.transport.send(b.name, text('lost'))).toBe(false);
    const again = await startHost('host-b', { address: b.address });
    await until(() => again.events.includes('up host-a') && a.events.length === 3);
    expect(a.events).toEqual(['up host-b', 'down host-b closed', 'up host-b']);
    a.transport.send(b.name, text('new'));
    await until(() => again.frames.length === 1);
    expect(textsOf(again)).toEqual(['new']);
  });

  it('ends when the members change, and follows a host to its new address', async () => {
    const [a, b] = await pair();
    a.transport.setPeers(new Map());
    await until(() => b.events.includes('down host-a closed'));
    expect(a.events).toEqual(['up host-b', 'down host-b silent']);
    await b.stop();
    const moved = await startHost('host-b');
    a.transport.setPeers(new Map([[b.name, b.address]]));
    a.transport.setPeers(new Map([[b.name, moved.address]]));
    await until(() => moved.events.includes('up host-a'));
  });

  it('is accepted from a host that this one has not heard of yet', async () => {
    const a = await startHost('host-a');
    const b = await startHost('host-b');
    a.transport.setPeers(new Map([[b.name, b.address]]));
    await until(() => b.events.includes('up host-a'));
    expect(b.transport.send(a.name, text('welcome'))).toBe(true);
  });

  it('is not made with a host that has the right address and another name', async () => {
    const a = await startHost('host-a');
    const c = await startHost('host-c');
    a.transport.setPeers(new Map([[hostId('host-b'), c.address]]));
    await until(() => a.logged.some((line) => line.includes('is not that of host-b')));
    expect([a.events, c.events]).toEqual([[], []]);
  });
});

describe('a stranger', () => {
  async function getsNothing(credentials: Parameters<typeof rawClient>[1]): Promise<TestHost> {
    const host = await startHost('host-m');
    const client = rawClient(host.address, credentials);
    client.socket.write(Buffer.concat([hello, lengthPrefixed('let me in')]));
    await client.closed;
    expect(client.received()).toHaveLength(0);
    expect([host.events, host.frames]).toEqual([[], []]);
    return host;
  }

  it('without a certificate gets nothing', async () => {
    await getsNothing({});
  });

  it('with a certificate of another cluster gets nothing', async () => {
    const foreign = await credentialsOf('host-a', await createAuthority('other'));
    await getsNothing(foreign);
    await getsNothing({ ...foreign, ca: (await authority()).certificate });
  });

  it('with an expired certificate gets nothing', async () => {
    await getsNothing(await credentialsOf('host-a', undefined, -60_000));
  });

  it('with a join token gets nothing where nobody can join', async () => {
    const described = { cluster: 'test', issuer: hostId('host-m'), addresses: [] };
    const token = await createJoinToken(await authority(), described);
    await getsNothing(readJoinToken(token).credentials);
  });

  it('with the certificate of the authority itself gets nothing', async () => {
    const ca = await authority();
    await getsNothing({ ca: ca.certificate, certificate: ca.certificate, key: ca.key });
  });

  it('with the name of a host that is to be dialled, or of this host, gets nothing', async () => {
    await getsNothing(await credentialsOf('host-z'));
    const host = await getsNothing(await credentialsOf('host-m'));
    expect(host.logged.join()).toContain('is to be dialled');
  });

  it('that speaks no TLS, or nothing at all, is let go', async () => {
    const host = await startHost('host-m');
    const silent = rawClient(host.address, await credentialsOf('host-a'));
    await until(() => silent.received().length === hello.length); // it is greeted, but does not answer
    await silent.closed;
    expect(host.events).toEqual([]);
  });

  it('with a good certificate and another protocol gets no session', async () => {
    const host = await startHost('host-m');
    const client = rawClient(host.address, await credentialsOf('host-a'));
    client.socket.write(lengthPrefixed('holdfast transport 9'));
    await client.closed;
    expect(host.events).toEqual([]);
  });
});

describe('sessions of one host', () => {
  it('replace each other, and nothing of an older one is delivered after', async () => {
    const host = await startHost('host-m');
    const credentials = await credentialsOf('host-a');
    const first = rawClient(host.address, credentials);
    first.socket.write(
      Buffer.concat([hello, lengthPrefixed('one'), lengthPrefixed('cut').subarray(0, 5)]),
    );
    await until(() => host.frames.length === 1);
    const second = rawClient(host.address, credentials);
    second.socket.write(Buffer.concat([hello, lengthPrefixed('two')]));
    first.socket.write(Buffer.from('ut'));
    await first.closed;
    await until(() => host.frames.length >= 2);
    expect(textsOf(host).filter((content) => content !== 'cut')).toEqual(['one', 'two']);
    expect(textsOf(host).indexOf('cut')).not.toBe(2);
    expect(host.events).toEqual(['up host-a', 'down host-a silent', 'up host-a']);
    second.socket.destroy();
    await until(() => host.events.length === 4);
  });

  it('end when nothing is heard', async () => {
    const host = await startHost('host-m', { idleTimeoutMs: 30 });
    const client = rawClient(host.address, await credentialsOf('host-a'));
    client.socket.write(hello);
    await client.closed;
    expect(host.events).toEqual(['up host-a', 'down host-a silent']);
    expect(host.logged.join()).toContain('nothing was heard');
  });

  it('end when the peer does not read', async () => {
    const host = await startHost('host-m');
    const client = rawClient(host.address, await credentialsOf('host-a'));
    client.socket.write(hello);
    await until(() => host.events.length === 1);
    client.socket.pause();
    const large = Buffer.alloc(limits.maxFrameBytes);
    let sent = 0;
    while (host.transport.send(hostId('host-a'), [large])) sent += 1;
    expect(sent).toBeLessThan(10);
    expect(host.events).toEqual(['up host-a']); // who sends is not called back from within
    await until(() => host.events.includes('down host-a silent'));
  });
});

describe('the listener', () => {
  it('says when its address is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => taken.once('listening', resolve));
    const { port } = taken.address() as { port: number };
    await expect(startHost('host-a', { address: `127.0.0.1:${port}` })).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining(`127.0.0.1:${port}`),
    });
    taken.close();
  });
});

describe('frames on a stream', () => {
  it('come out as they went in, however the stream is cut', () => {
    const frames = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 });
    fc.assert(
      fc.property(
        frames,
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
        (sent, cuts) => {
          const stream = Buffer.concat(sent.map((frame) => lengthPrefixed(frame)));
          const reader = new FrameReader(40);
          const got: Buffer[] = [];
          for (let at = 0, turn = 0; at < stream.length; turn += 1) {
            const end = at + (cuts[turn % cuts.length] as number);
            const fits = reader.push(stream.subarray(at, end), (frame) => {
              got.push(Buffer.from(frame));
              return true;
            });
            expect(fits).toBe(true);
            at = end;
          }
          expect(got).toEqual(sent.map((frame) => Buffer.from(frame)));
        },
      ),
    );
  });

  it('are refused where they are announced as too long, and not read on when told to stop', () => {
    expect(new FrameReader(40).push(lengthPrefixed(Buffer.alloc(41)), () => true)).toBe(false);
    let seen = 0;
    const stop = () => {
      seen += 1;
      return false;
    };
    new FrameReader(40).push(Buffer.concat([lengthPrefixed('a'), lengthPrefixed('b')]), stop);
    expect(seen).toBe(1);
  });
});
