// What is at stake when a host comes back under the name that it had: the numbers of its requests begin anew.

import { expect, test } from 'vitest';
import { SilentLog } from '../../test/support/silent-log.ts';
import { VirtualClock } from '../../test/support/virtual-clock.ts';
import { hostId } from '../model/ids.ts';
import type { TransportEvents } from '../ports/transport.ts';
import { decodeFrame, encodeFrame, noPayload } from './frame.ts';
import { createPeer, type Reply } from './peer.ts';

const a = hostId('a');

/** A peer whose network is the test's word. */
function peerWithTransport() {
  const sent: string[] = [];
  let events: TransportEvents | null = null;
  const peer = createPeer({
    self: hostId('b'),
    network: 'storage',
    clock: new VirtualClock(),
    log: new SilentLog(),
    transport: {
      start: (given) => void (events = given),
      setPeers: () => {},
      send(_to, chunks) {
        const { kind, body } = decodeFrame(new Uint8Array(Buffer.concat(chunks)));
        sent.push(`${kind} ${JSON.stringify(body)}`);
        return true;
      },
      stop: async () => {},
    },
  });
  const replies: Reply[] = [];
  peer.on('read', (_from, _body, _payload, reply) => void replies.push(reply));
  peer.start();
  const { up, down, frame } = events as unknown as TransportEvents;
  const ask = (requestId: number) => {
    const chunks = encodeFrame({
      ...{ kind: 'request' as const, requestId, type: 'read' },
      ...{ body: null, payload: noPayload },
    });
    frame(a, new Uint8Array(Buffer.concat(chunks)));
  };
  return { peer, sent, replies, up, down, ask };
}

test('an answer goes over the session that brought the request, or nowhere', () => {
  const { sent, replies, up, down, ask } = peerWithTransport();
  up(a);
  ask(1);
  down(a, 'closed');
  up(a); // a new daemon, which asks for something else under the same number
  ask(1);
  replies[0]?.ok('of the first');
  replies[1]?.ok('of the second');
  expect(sent).toEqual(['reply "of the second"']);
});

test('who has no session any more gets no answer', () => {
  const { sent, replies, up, down, ask } = peerWithTransport();
  up(a);
  ask(1);
  down(a, 'silent');
  up(a);
  replies[0]?.ok('late');
  expect(sent).toEqual([]);
});
